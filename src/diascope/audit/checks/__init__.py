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
    """Return the findings of every check, the gravest first; a check that fails becomes one."""
    found = [finding for name in CHECKS for finding in _findings(name, results)]
    return sorted(found, key=lambda finding: ORDER.index(finding.severity))


def _findings(name: str, results: Results) -> list[Finding]:
    try:
        return list(CHECKS[name](results))
    except Exception as error:  # what was measured in hours is not lost for it
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        return [
            Finding(
                check=name,
                severity="medium",
                title=f"The check '{name}' failed",
                evidence=reason,
                meaning="Whether it would have found something is unknown; the numbers that it "
                "reads are in the report all the same.",
                remedy="This is a fault of Diascope: report it, with this line and the version. "
                "The same command, once it is mended, reads back what was measured.",
            )
        ]
