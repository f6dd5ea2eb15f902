"""A table: rows runs, columns quantities, what the paper has in brackets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from diascope.report import numbers as n
from diascope.report.study.figures import FIGURES, Declared, Drawn, Measure, Seen, headed, of_run
from diascope.report.study.series import Value, value_of
from diascope.report.study.words import ENOUGH
from diascope.report.tables import Block, Cell, Row, Table

NOT_MEASURED = "not measured"


@FIGURES.register("table")
@dataclass(frozen=True, kw_only=True)
class TableFigure(Declared):
    """Rows runs, columns quantities.

    columns: by heading, a quantity with `{run}` in it. published: by run and heading. percent: the
    paper's numbers are per cent, and ours are shown so.
    """

    columns: dict[str, Any]
    published: dict[str, dict[str, float | str]] = field(default_factory=dict)
    percent: bool = False

    def quantities(self, runs: list[str]) -> Iterator[Any]:
        """Yield the quantity of each cell."""
        for run in runs:
            yield from (of_run(quantity, run) for quantity in self.columns.values())

    def headings(self, runs: list[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield what is published; see `Declared`."""
        yield from headed(self.published, runs, self.columns)

    def show(self, seen: Seen) -> Drawn:
        """Return the table."""
        runs = self.shown(seen.results.study)
        found = [
            seen.values.across([of_run(quantity, run) for run in runs])
            for quantity in self.columns.values()
        ]
        rows, measures = [], []
        for k, run in enumerate(runs):
            paper = self.published.get(run, {})
            cells = [
                value_cell(value_of(of_head[k]), paper.get(head), self.percent)
                for head, of_head in zip(self.columns, found, strict=True)
            ]
            rows.append(Row(self.name(run), cells))
            measures += [
                Measure("", self.name(run), head, value_of(of_head[k]), paper.get(head))
                for head, of_head in zip(self.columns, found, strict=True)
            ]
        columns: list[tuple[str, int | None]] = [(head, None) for head in self.columns]
        told = [", per cent" if self.percent else "", " (published)" if self.published else ""]
        under = f"ours{''.join(told)}" if any(told) else ""
        table = Table(self.title, "Run", columns, [Block(rows)], under)
        return Drawn(table=table, folded=False, cells=measures)


def value_cell(value: Value, published: float | str | None, percent: bool = False) -> Cell:
    """Return a cell: ours, the paper's in brackets, and the interval or the seeds beneath.

    Of few seeds, which the interval does not speak of, the least and the largest stand there.
    """
    paper = "" if published is None else f" ({published})"
    if not value.known:
        return Cell(f"{n.DASH}{paper}", why=NOT_MEASURED)
    scale, digits = (100.0, 1) if percent else (1.0, 3)
    first, low, high = (v * scale for v in value.bounds)
    under = ""
    if n.has_limits(value.bounds):
        limits = f"{n.number(low, digits)}, {n.number(high, digits)}"
        under = f"[{limits}]" if percent else n.interval(value.bounds)
    told = "; ".join(f"seed {s}: {n.number(v * scale, digits)}" for s, v in value.seeds.items())
    if under and value.spread and len(value.seeds) < ENOUGH:
        least, most = (n.number(v * scale, digits) for v in value.spread)
        under += f",\nseeds {least} to {most}" if least != most else ""
    return Cell(f"{n.number(first, digits)}{paper}", under or told, title=told)
