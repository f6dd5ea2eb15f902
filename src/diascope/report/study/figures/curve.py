"""Accuracy under attack by epsilon, a panel an attack, a line a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from diascope.report.study.figures import FIGURES, Declared, Drawn, Seen, headed
from diascope.report.study.figures.table import value_cell
from diascope.report.study.series import Plot, Series, Value, value_of
from diascope.report.tables import Block, Row, Table


@FIGURES.register("curve")
@dataclass(frozen=True, kw_only=True)
class CurveFigure(Declared):
    """Accuracy under attack by epsilon: the columns `ATTACK@EPS` of one evaluation.

    attacks: a panel each, in this order; none for all that the evaluation has. clean: accuracy
    without an attack, at eps 0. published: by run, attack and eps. percent: the paper's numbers
    are per cent. levels: heights that need no skill, such as chance, by name.
    """

    evaluation: str
    attacks: list[str] = field(default_factory=list)
    clean: bool = True
    published: dict[str, dict[str, dict[float, float]]] = field(default_factory=dict)
    percent: bool = False
    levels: dict[str, float] = field(default_factory=dict)
    x_title: str = "eps"

    def quantities(self, runs: list[str]) -> Iterator[Any]:
        """Yield the accuracy without an attack of each run."""
        yield from (f"{run}/{self.evaluation}.correct" for run in runs)

    def headings(self, runs: list[str]) -> Iterator[tuple[str, list[str]]]:
        """Yield what is published; see `Declared`."""
        yield from headed(self.published, runs, self.attacks or _any(self.published))

    def show(self, seen: Seen) -> Drawn:
        """Return a plot for each attack, and the numbers."""
        attacks = seen.values.attacks(self.evaluation)
        runs = self.shown(seen.results.study)
        plots = [
            self._plot(seen, attack, attacks.get(attack, []), runs)
            for attack in self.attacks or attacks
        ]
        if not any(each.points for plot in plots for each in plot.series):
            return Drawn(notes=["Nothing was measured yet."])
        return Drawn(plots=plots, table=plots_table(self.title, self.x_title, plots))

    def _plot(
        self, seen: Seen, attack: str, epsilons: list[tuple[float, str]], runs: list[str]
    ) -> Plot:
        series = []
        for index, run in enumerate(runs):
            bare = self.clean and bool(epsilons) and epsilons[0][0] > 0
            columns = ([(0.0, "correct")] if bare else []) + epsilons
            found = seen.values.together([f"{run}/{self.evaluation}.{c}" for _, c in columns])
            points = list(zip([eps for eps, _ in columns], map(value_of, found), strict=True))
            scale = 0.01 if self.percent else 1.0
            paper = self.published.get(run, {}).get(attack, {})
            published = sorted((eps, accuracy * scale) for eps, accuracy in paper.items())
            series.append(Series(self.name(run), index, points, published))
        levels = [(height, name) for name, height in self.levels.items()]
        title = "strongest attack" if attack == "strongest" else attack
        return Plot(title, self.x_title, f"Accuracy, {title}", series, levels)


def _any(published: Mapping[str, Mapping[str, Any]]) -> list[str]:
    return [attack for of_run in published.values() for attack in of_run]


def plots_table(title: str, corner: str, plots: list[Plot]) -> Table:
    """Return the numbers of some plots: a block a plot, a row a line, a column a place."""
    places = sorted({x for plot in plots for x in plot.places})
    blocks = []
    for plot in plots:
        rows = []
        for each in plot.series:
            points, paper = dict(each.points), dict(each.published)
            cells = []
            for x in places:
                told = f"{paper[x]:.4g}" if x in paper else None
                cells.append(value_cell(points.get(x, Value()), told))
            rows.append(Row(each.name, cells, model=each.index))
        blocks.append(Block(rows, plot.title if len(plots) > 1 else ""))
    columns: list[tuple[str, int | None]] = [(f"{x:g}", None) for x in places]
    known = any(each.published for plot in plots for each in plot.series)
    return Table(title, corner, columns, blocks, "ours (published)" if known else "")
