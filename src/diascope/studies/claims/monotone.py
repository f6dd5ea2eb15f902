"""Quantities rise, or fall, one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from diascope.studies.claims import CLAIMS, Floats, LeastPart, told


@CLAIMS.register("monotone")
@dataclass(frozen=True)
class Monotone(LeastPart):
    """The claim that every quantity is above (below) the one before it, less `tolerance`.

    The effect is the least step in the direction claimed, negative where one goes against it.
    """

    quantities: tuple[Any, ...]
    direction: Literal["rising", "falling"] = "rising"
    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if len(self.quantities) < 2:
            raise ValueError("quantities: two at least are needed")
        if not 0 <= self.tolerance < np.inf:
            raise ValueError("tolerance must be a finite number of at least 0")

    @property
    def thresholds(self) -> tuple[float, ...]:
        """What a step may go the other way, below 0; see `Claim`."""
        return (0.0 - self.tolerance,)

    def contrasts(self, values: Floats) -> Floats:
        """Return the steps and the tolerance; see `Claim`."""
        return self.parts(values) + self.tolerance

    def parts(self, values: Floats) -> Floats:
        """Return the Q - 1 steps in the direction claimed; see `Claim`."""
        steps = np.diff(values, axis=0)
        return steps if self.direction == "rising" else -steps

    def describe(self) -> str:
        """Return the statement in symbols; see `Claim`."""
        sign = " < " if self.direction == "rising" else " > "
        spare = f", each within {self.tolerance:g}" if self.tolerance else ""
        return sign.join(told(each) for each in self.quantities) + spare
