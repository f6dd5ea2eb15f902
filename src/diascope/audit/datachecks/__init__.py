"""Checks of data, one file a member: evidence -> findings, each with files, meaning and remedy.

A check is a function from `Evidence` to its findings, filed by `@DATA_CHECKS.register("name")`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from diascope.audit.checks import ORDER
from diascope.audit.results import Finding
from diascope.registry import Registry

if TYPE_CHECKING:
    from diascope.audit.datachecks.evidence import Evidence

DataCheck = Callable[["Evidence"], list[Finding]]

DATA_CHECKS = Registry("data check", __name__)


def run_data_checks(evidence: Evidence) -> list[Finding]:
    """Return the findings of every check of data, the gravest first."""
    found = [finding for name in DATA_CHECKS for finding in DATA_CHECKS[name](evidence)]
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))
