"""The findings, gravest first, and which models each concerns."""

from __future__ import annotations

from dataclasses import dataclass

from diascope.audit.results import Finding, Results

SEVERITIES = {"high": "High", "medium": "Medium", "low": "Low", "info": "Note"}
FEW = 20  # sets of files that are listed


@dataclass(frozen=True)
class Listed:
    """A finding with its place on the page and the model it is of; none: it concerns all."""

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
    """Return the place of the model that a finding is of; none for the data, or for all models."""
    return [names.index(finding.model)] if finding.model in names else []
