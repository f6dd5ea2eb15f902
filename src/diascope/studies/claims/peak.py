"""The largest of several quantities lies among some of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diascope.errors import nearest
from diascope.studies.claims import CLAIMS, Floats, LeastPart, told

Place = int | float | str


@CLAIMS.register("peak")
@dataclass(frozen=True)
class Peak(LeastPart):
    """The claim that the largest quantity is one of those at the places `inside`.

    among: the place of each quantity, words or numbers such as epsilons; 1, 2, ... where empty.
    The effect is the largest inside less the largest outside.

    A bootstrap of that difference would not hold: where several quantities are nearly the largest,
    the largest of a resample is too large on average, the more so the more there are, and no
    number of images mends it (Andrews 2000). With five equal ones outside and one inside, the
    plain bootstrap refutes a tie in 13% of cases instead of 2.5%. So it is decided by the
    differences of pairs, which are means: the claim holds where one of those inside is above each
    one outside. For having picked the best one inside its p is multiplied by their number, and
    likewise for refuting it, by the number of those outside. The interval of the effect is the one
    that goes with these tests.
    """

    quantities: tuple[Any, ...]
    inside: tuple[Place, ...]
    among: tuple[Place, ...] = ()

    def __post_init__(self) -> None:
        if self.among and len(self.among) != len(self.quantities):
            raise ValueError(
                f"among has {len(self.among)} places for {len(self.quantities)} quantities"
            )
        places = [_key(place) for place in self.places]
        if len(set(places)) < len(places):
            raise ValueError("among: a place stands there twice")
        for place in self.inside:
            if _key(place) not in places:
                raise ValueError(
                    f"inside: no place '{_key(place)}': {nearest(_key(place), places)}"
                )
        if not 0 < len(set(map(_key, self.inside))) < len(places):
            raise ValueError("inside: one place at least must be inside, and one outside")

    @property
    def places(self) -> tuple[Place, ...]:
        """The place of each quantity."""
        return self.among or tuple(range(1, len(self.quantities) + 1))

    @property
    def alternatives(self) -> int:
        """The number of quantities inside; see `Claim`."""
        return sum(self._inside)

    @property
    def _inside(self) -> list[bool]:
        wanted = {_key(place) for place in self.inside}
        return [_key(place) in wanted for place in self.places]

    def contrasts(self, values: Floats) -> Floats:
        """Return each one inside less each one outside; see `Claim`."""
        return self.parts(values)

    def parts(self, values: Floats) -> Floats:
        """Return each one inside less each one outside; see `Claim`."""
        inside = [q for q, within in enumerate(self._inside) if within]
        outside = [q for q, within in enumerate(self._inside) if not within]
        pairs = values[inside][:, None] - values[outside][None]  # (inside, outside, ...)
        return pairs.reshape(-1, *values.shape[1:])

    def describe(self) -> str:
        """Return the statement in symbols; see `Claim`."""
        sides: dict[bool, list[str]] = {True: [], False: []}
        for quantity, within in zip(self.quantities, self._inside, strict=True):
            sides[within].append(told(quantity))
        return f"{_largest(sides[True])} > {_largest(sides[False])}"


def _largest(told: list[str]) -> str:
    return told[0] if len(told) == 1 else f"max({', '.join(told)})"


def _key(place: Place) -> str:
    return place if isinstance(place, str) else f"{place:g}"
