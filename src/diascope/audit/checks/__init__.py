"""Checks, one file a member: results -> findings, each with evidence, meaning and remedy.

A check is a function from `Results` to its findings, filed by `@CHECKS.register("name")`.
"""

from __future__ import annotations

from collections.abc import Callable

from diascope.audit.results import Finding, Results
from diascope.registry import Registry

Check = Callable[[Results], list[Finding]]

CHECKS = Registry("check", __name__)

ORDER = ("high", "medium", "low", "info")


def run_checks(results: Results) -> list[Finding]:
    """Return the findings of every check, the gravest first."""
    found = [finding for name in CHECKS for finding in CHECKS[name](results)]
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))
