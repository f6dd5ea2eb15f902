"""Quantities against a number that belongs to each run, such as its eps, its k or its lambda."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from diascope.report.study.figures import FIGURES, Declared, Drawn, Seen, of_run
from diascope.report.study.figures.curve import plots_table
from diascope.report.study.series import Plot, Series, value_of


@FIGURES.register("line")
@dataclass(frozen=True, kw_only=True)
class LineFigure(Declared):
    """Quantities against a number.

    x: of each run its number, not below zero. lines: by name, a quantity with `{run}` in it.
    published: by line and number. levels: heights to compare with, by name, a number or a quantity
    without `{run}`.
    """

    x: dict[str, float]
    x_title: str
    lines: dict[str, Any]
    y_title: str = ""
    published: dict[str, dict[float, float]] = field(default_factory=dict)
    levels: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        low = min(self.x, key=lambda run: self.x[run], default=None)
        if low is None:
            raise ValueError("'x' names no run")
        if self.x[low] < 0:
            raise ValueError(f"x.{low} = {self.x[low]:g}: use 0 or more")

    def quantities(self, runs: list[str]) -> Iterator[Any]:
        """Yield the quantity of each point."""
        for run in self.x:
            yield from (of_run(quantity, run) for quantity in self.lines.values())
        yield from (level for level in self.levels.values() if not isinstance(level, int | float))

    def headings(self, runs: list[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield what is published; see `Declared`."""
        yield from ((name, list(self.lines)) for name in self.published)

    def show(self, seen: Seen) -> Drawn:
        """Return one plot, and the numbers."""
        series = []
        for index, (name, quantity) in enumerate(self.lines.items()):
            found = seen.values.across([of_run(quantity, run) for run in self.x])
            points = sorted(
                zip(self.x.values(), map(value_of, found), strict=True), key=lambda point: point[0]
            )
            published = sorted(self.published.get(name, {}).items())
            series.append(Series(name, index, points, published))
        levels = [
            (height, name)
            for name, level in self.levels.items()
            if (height := self._height(seen, level)) is not None
        ]
        plot = Plot(self.title, self.x_title, self.y_title or self.title, series, levels)
        return Drawn(plots=[plot], table=plots_table(self.title, self.x_title, [plot]))

    def _height(self, seen: Seen, level: Any) -> float | None:
        if isinstance(level, int | float):
            return float(level)
        value = value_of(seen.values.of(level))
        return value.bounds[0] if value.known else None
