"""Two quantities are equal, within a stated amount."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diascope.studies.claims import CLAIMS, Floats, LeastPart, told


@CLAIMS.register("equal")
@dataclass(frozen=True)
class Equal(LeastPart):
    """The claim that |a - b| < within; the effect is a - b.

    Two one-sided tests (Schuirmann 1987): it is supported where the whole interval of a - b lies
    within the bounds, and refuted where a - b is shown to lie outside. That no difference was found
    supports nothing.
    """

    a: Any
    b: Any
    within: float

    def __post_init__(self) -> None:
        if not 0 < self.within < np.inf:
            raise ValueError("within must be a finite number above 0")

    @property
    def quantities(self) -> tuple[object, ...]:
        """The two."""
        return (self.a, self.b)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The bounds of the difference; see `Claim`."""
        return (-self.within, self.within)

    def contrasts(self, values: Floats) -> Floats:
        """Return the room to either bound; see `Claim`."""
        difference = self.parts(values)
        return np.concatenate([self.within - difference, self.within + difference])

    def parts(self, values: Floats) -> Floats:
        """Return a - b; see `Claim`."""
        return values[:1] - values[1:]

    def describe(self) -> str:
        """Return the statement in symbols; see `Claim`."""
        return f"|{told(self.a)} - {told(self.b)}| < {self.within:g}"
