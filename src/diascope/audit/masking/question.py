"""What a check asks, and how its answer is put together and decided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from scipy.stats import binomtest

from diascope.audit.parts import MaskingOutcome, Severity, Verdict

FEWEST = 8  # images that must be classified correctly, and still stand where that is asked
NOTHING: Mapping[str, float] = MappingProxyType({})
CHANCE = 0.01  # the probability at which a difference between two attacks is not put to chance


@dataclass(frozen=True)
class Question:
    """One of the fourteen: its number, what is asked, and what a failure means and calls for."""

    number: int
    name: str
    text: str
    meaning: str
    remedy: str
    severity: Severity = "high"

    def passed(self, evidence: str, **numbers: float) -> MaskingOutcome:
        """Return the outcome of a check that found nothing amiss."""
        return self._outcome("passed", evidence, numbers)

    def undecided(
        self, why: str, known: Mapping[str, float] = NOTHING, **numbers: float
    ) -> MaskingOutcome:
        """Return the outcome of a check that could not be made, and why."""
        return self._outcome("undecided", why, {**known, **numbers})

    def decided(
        self,
        passed: bool,
        evidence: str,
        severity: Severity | None = None,
        known: Mapping[str, float] = NOTHING,
        **numbers: float,
    ) -> MaskingOutcome:
        """Return the outcome of a check that could be made; severity: if not the usual one.

        Its numbers are those `known` by any name, and those given by their own.
        """
        found = {**known, **numbers}
        return self._outcome("passed" if passed else "failed", evidence, found, severity)

    def _outcome(
        self,
        verdict: Verdict,
        evidence: str,
        numbers: dict[str, float],
        severity: Severity | None = None,
    ) -> MaskingOutcome:
        return MaskingOutcome(
            number=self.number,
            name=self.name,
            question=self.text,
            verdict=verdict,
            evidence=evidence,
            meaning=self.meaning,
            remedy=self.remedy,
            severity=severity or self.severity,
            numbers={name: float(value) for name, value in numbers.items()},
        )


def outdone(first: int, second: int) -> float:
    """Return the one-sided p of the sign test that one of two attacks is the stronger.

    first: images that it alone broke; second: that the other alone broke. 1 where there are none.
    """
    if first + second == 0:
        return 1.0
    return float(binomtest(first, first + second, 0.5, alternative="greater").pvalue)


def images(count: int) -> str:
    """Return a number of images in words: "1 image", "12 images"."""
    return f"{count} image" + ("" if count == 1 else "s")
