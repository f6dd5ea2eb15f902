"""The checks on gradient masking, a row a check, side by side where models are compared."""

from __future__ import annotations

from dataclasses import dataclass

from diascope.audit.parts import MaskingOutcome
from diascope.audit.results import Results

SIGNS = {"passed": "✓", "failed": "✗", "undecided": "?"}


@dataclass(frozen=True)
class Check:
    """One check: its question, and its outcome for each model (None where it was not run)."""

    number: int
    question: str
    outcomes: list[MaskingOutcome | None]

    @property
    def failed(self) -> bool:
        """Whether some model failed it."""
        return any(o is not None and o.verdict == "failed" for o in self.outcomes)


@dataclass(frozen=True)
class Masking:
    """All checks, and for each model how many passed, failed and stayed undecided."""

    checks: list[Check]
    counts: list[dict[str, int]]


def masking(results: Results) -> Masking | None:
    """Return the checks in their order; None where none was run."""
    numbers = sorted({o.number for m in results.models for o in m.masking})
    if not numbers:
        return None
    found = [{o.number: o for o in m.masking} for m in results.models]
    checks = []
    for number in numbers:
        outcomes = [each.get(number) for each in found]
        question = next(o.question or o.name for o in outcomes if o is not None)
        checks.append(Check(number, question, outcomes))
    counts = [
        {v: sum(o.verdict == v for o in model.masking) for v in SIGNS} for model in results.models
    ]
    return Masking(checks, counts)
