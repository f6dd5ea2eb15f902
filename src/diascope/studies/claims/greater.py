"""One quantity is greater than another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diascope.studies.claims import CLAIMS, Floats, LeastPart, told


@CLAIMS.register("greater")
@dataclass(frozen=True)
class Greater(LeastPart):
    """The claim that a > b + margin; the effect is a - b."""

    a: Any
    b: Any
    margin: float = 0.0

    def __post_init__(self) -> None:
        if not np.isfinite(self.margin):
            raise ValueError("margin must be a finite number")

    @property
    def quantities(self) -> tuple[object, ...]:
        """The two."""
        return (self.a, self.b)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The margin; see `Claim`."""
        return (self.margin,)

    def contrasts(self, values: Floats) -> Floats:
        """Return a - b - margin; see `Claim`."""
        return self.parts(values) - self.margin

    def parts(self, values: Floats) -> Floats:
        """Return a - b; see `Claim`."""
        return values[:1] - values[1:]

    def describe(self) -> str:
        """Return the statement in symbols; see `Claim`."""
        margin = f" {'+' if self.margin > 0 else '-'} {abs(self.margin):g}" if self.margin else ""
        return f"{told(self.a)} > {told(self.b)}{margin}"
