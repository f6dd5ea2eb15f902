"""One quantity exceeds another by a stated amount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diascope.studies.claims import CLAIMS, Floats, LeastPart, told


@CLAIMS.register("at_least")
@dataclass(frozen=True)
class AtLeast(LeastPart):
    """The claim that a - b >= by; the effect is a - b.

    Whether a mean equals `by` to the last digit cannot be measured: it is decided as a - b > by.
    """

    a: Any
    b: Any
    by: float

    def __post_init__(self) -> None:
        if not np.isfinite(self.by):
            raise ValueError("by must be a finite number")

    @property
    def quantities(self) -> tuple[object, ...]:
        """The two."""
        return (self.a, self.b)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The difference stated; see `Claim`."""
        return (self.by,)

    def contrasts(self, values: Floats) -> Floats:
        """Return a - b - by; see `Claim`."""
        return self.parts(values) - self.by

    def parts(self, values: Floats) -> Floats:
        """Return a - b; see `Claim`."""
        return values[:1] - values[1:]

    def describe(self) -> str:
        """Return the statement in symbols; see `Claim`."""
        return f"{told(self.a)} - {told(self.b)} >= {self.by:g}"
