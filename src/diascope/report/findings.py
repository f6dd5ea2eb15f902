"""The findings, gravest first, and which models each concerns."""

from __future__ import annotations

import re
from dataclasses import dataclass

from diascope.audit.results import Finding, Results

SEVERITIES = {"high": "High", "medium": "Medium", "low": "Low", "info": "Note"}
FEW = 20  # sets of files that are listed


@dataclass(frozen=True)
class Listed:
    """A finding with its place on the page and the models it names; none: it concerns all."""

    number: int
    finding: Finding
    models: list[int]

    @property
    def sets(self) -> list[str]:
        """Return the first sets of files it concerns, the copies of one image joined."""
        return [" = ".join(each) for each in self.finding.files[:FEW]]


@dataclass(frozen=True)
class Grade:
    """All findings of one severity."""

    severity: str
    name: str
    findings: list[Listed]


def graded(results: Results) -> list[Grade]:
    """Return the severities that have findings, the gravest first."""
    order = list(SEVERITIES)
    ranked = sorted(results.findings, key=lambda finding: order.index(finding.severity))
    names = [model.name for model in results.models]
    listed = [Listed(k, each, concerned(each, names)) for k, each in enumerate(ranked, 1)]
    grades = []
    for severity, name in SEVERITIES.items():
        those = [each for each in listed if each.finding.severity == severity]
        if those:
            grades.append(Grade(severity, name, those))
    return grades


def concerned(finding: Finding, names: list[str]) -> list[int]:
    """Return the places of the models that a finding names, in its title else its evidence."""
    for text in (finding.title, finding.evidence):
        places = [k for k, name in enumerate(names) if _named(name, text)]
        if places:
            return places
    return []


def _named(name: str, text: str) -> bool:
    return re.search(rf"(?<![\w-]){re.escape(name)}(?![\w-])", text) is not None
