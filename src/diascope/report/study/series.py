"""What the charts of a study show, as plain values: lines over a number, and bars."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from diascope.audit.parts import Bounds
from diascope.report import numbers as n
from diascope.studies.results import Bounds as StudyBounds
from diascope.studies.results import QuantityResult

NOTHING: Bounds = (float("nan"),) * 3


@dataclass(frozen=True)
class Value:
    """A value with its interval, each seed's value, and on how many images it was measured.

    The interval is over images, and from five seeds on over seeds, too.
    """

    bounds: Bounds = NOTHING
    seeds: dict[int, float] = field(default_factory=dict)
    images: int = 0

    @property
    def known(self) -> bool:
        """Whether there is a number."""
        return n.defined(self.bounds[0])

    @property
    def spread(self) -> tuple[float, float] | None:
        """Return the least and the largest of the seeds; None of fewer than two."""
        found = [value for value in self.seeds.values() if n.defined(value)]
        return (min(found), max(found)) if len(found) > 1 else None


@dataclass(frozen=True)
class Series:
    """One line: (x, value) in the order of x, and what the paper has, (x, y)."""

    name: str
    index: int
    points: list[tuple[float, Value]]
    published: list[tuple[float, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Plot:
    """Lines over a number x >= 0. levels: heights that need no skill, with their names."""

    title: str
    x_title: str
    y_title: str
    series: list[Series]
    levels: list[tuple[float, str]] = field(default_factory=list)

    @property
    def places(self) -> list[float]:
        """Return every x, rising."""
        found = {x for s in self.series for x, _ in [*s.points, *s.published]}
        return sorted(found)


@dataclass(frozen=True)
class Bar:
    """One bar, and what the paper has in its place."""

    name: str
    index: int
    value: Value
    published: float | None = None


@dataclass(frozen=True)
class Bars:
    """Bars from zero under a title; signed where they may lie on both sides.

    edges: what effects are held against: above the one, or between the two; empty for nothing.
    """

    title: str
    bars: list[Bar]
    bodies: bool = True  # False: marks alone, as for an effect
    edges: list[float] = field(default_factory=list)


def bounds_of(bounds: StudyBounds) -> Bounds:
    """Return bounds as the report's numbers are written; limits that are missing become NaN."""
    nan = float("nan")
    low, high = (nan if limit is None else limit for limit in (bounds.low, bounds.high))
    return (bounds.value, low, high)


def value_of(found: QuantityResult | None) -> Value:
    """Return a quantity's value for a chart; nothing where it was not measured."""
    return (
        Value()
        if found is None
        else Value(bounds_of(found.bounds), dict(found.seeds), found.images)
    )


def extent(numbers: Iterable[float]) -> tuple[float, float]:
    """Return the least and the largest of some numbers and zero; 0 to 1 where all are zero."""
    found = [value for value in numbers if n.defined(value)]
    if not any(found):
        return (0.0, 1.0)
    return min(0.0, *found), max(0.0, *found)


def plot_extent(plot: Plot) -> tuple[float, float]:
    """Return between which heights a plot lies; accuracies take the whole of 0 to 1."""
    found = [v for s in plot.series for _, value in s.points for v in spread_of(value)]
    found += [y for s in plot.series for _, y in s.published]
    found += [y for y, _ in plot.levels]
    low, high = extent(found)
    return (0.0, 1.0) if low == 0 and 0.6 < high <= 1 else (low, high)


def spread_of(value: Value) -> list[float]:
    """Return every number that is drawn of a value."""
    return [v for v in (*value.bounds, *value.seeds.values()) if n.defined(v)]
