"""Bars with intervals: a panel a quantity, a bar a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from diascope.report.study.figures import FIGURES, Declared, Drawn, Seen, headed, of_run
from diascope.report.study.figures.table import value_cell
from diascope.report.study.series import Bar, Bars, value_of
from diascope.report.tables import Block, Row, Table


@FIGURES.register("bars")
@dataclass(frozen=True, kw_only=True)
class BarsFigure(Declared):
    """Bars with intervals.

    panels: by title, a quantity with `{run}` in it. published: by run and panel. percent: the
    paper's numbers are per cent.
    """

    panels: dict[str, Any]
    published: dict[str, dict[str, float]] = field(default_factory=dict)
    percent: bool = False

    def quantities(self, runs: list[str]) -> Iterator[Any]:
        """Yield the quantity of each bar."""
        for run in runs:
            yield from (of_run(quantity, run) for quantity in self.panels.values())

    def headings(self, runs: list[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield what is published; see `Declared`."""
        yield from headed(self.published, runs, self.panels)

    def show(self, seen: Seen) -> Drawn:
        """Return the bars of each panel, and the numbers."""
        runs = self.shown(seen.results.study)
        panels = []
        for title, quantity in self.panels.items():
            found = seen.values.across([of_run(quantity, run) for run in runs])
            bars = [
                Bar(self.name(run), index, value_of(each), self._paper(run, title))
                for index, (run, each) in enumerate(zip(runs, found, strict=True))
            ]
            panels.append(Bars(title, bars))
        return Drawn(bars=panels, table=self._table(panels))

    def _paper(self, run: str, title: str) -> float | None:
        found = self.published.get(run, {}).get(title)
        return None if found is None else found * (0.01 if self.percent else 1.0)

    def _table(self, panels: list[Bars]) -> Table:
        rows = []
        for k, first in enumerate(panels[0].bars):
            of_this = [panel.bars[k] for panel in panels]
            cells = [
                value_cell(b.value, None if b.published is None else f"{b.published:.4g}")
                for b in of_this
            ]
            rows.append(Row(first.name, cells, model=first.index))
        columns: list[tuple[str, int | None]] = [(panel.title, None) for panel in panels]
        under = "ours (published)" if self.published else ""
        return Table(self.title, "Run", columns, [Block(rows)], under)
