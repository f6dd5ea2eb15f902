"""The charts of a study as figures for papers: the same lines and bars, drawn by matplotlib."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diascope.report import numbers as n
from diascope.report.charts import Sign
from diascope.report.curves import uses_root
from diascope.report.grid import INK, QUIET
from diascope.report.lettering import FAMILY, Lettering, printable, wrapped
from diascope.report.roc import COLOURS, DASHES
from diascope.report.study.charts import rounded_ticks
from diascope.report.study.series import Bars, Plot, Series, extent, plot_extent, spread_of

MARKS = ("o", "s", "^", "D", "v", "h")
WIDE, HIGH = 250.0, 190.0  # points, of a panel
ACROSS = 3


def plots_figure(plots: Sequence[Plot], title: str) -> Figure:
    """Return panels of lines, at most three across; one legend at the foot."""
    names = list(dict.fromkeys((s.name, s.index) for plot in plots for s in plot.series))
    published = any(s.published for plot in plots for s in plot.series)
    columns = min(len(plots), ACROSS)
    rows = math.ceil(len(plots) / columns)
    per_line = max(1, int(columns * (WIDE + 60) // 170))
    entries = len(names) + published
    foot = 14.0 * math.ceil(entries / per_line) + 14.0
    box = _Box(columns, rows, head=30.0, foot=foot, below=48.0)
    figure = box.figure(title)
    for k, plot in enumerate(plots):
        axes = figure.add_axes(box.panel(k))
        _lines(axes, plot, titled=len(plots) > 1)
    for k, (name, index) in enumerate(names):
        _legend(figure, box, k, per_line, name, _style(index), _mark(index), True)
    if published:
        style: dict[str, Any] = {"color": QUIET, "linewidth": 0}
        words = "large hollow mark: published"
        _legend(figure, box, len(names), per_line, words, style, "o", False)
    return figure


def bars_figure(panels: Sequence[Bars], title: str) -> Figure:
    """Return panels of horizontal bars, at most three across."""
    columns = min(len(panels), ACROSS)
    rows = math.ceil(len(panels) / columns)
    count = max((len(panel.bars) for panel in panels), default=1)
    box = _Box(columns, rows, head=30.0, foot=8.0, below=34.0, high=24.0 + 26.0 * count, left=96.0)
    figure = box.figure(title)
    for k, panel in enumerate(panels):
        axes = figure.add_axes(box.panel(k))
        _bars(axes, panel)
    return figure


class _Box:
    """Where panels stand, in points from the upper left corner."""

    def __init__(
        self,
        columns: int,
        rows: int,
        *,
        head: float,
        foot: float,
        below: float,
        high: float = HIGH,
        left: float = 52.0,
    ) -> None:
        self.columns, self.high, self.left, self.below = columns, high, left, below
        self.step = (left + WIDE + 16.0, 20.0 + high + below)
        self.head, self.foot = head, foot
        self.width = columns * self.step[0] + 6.0
        self.height = head + rows * self.step[1] + foot

    def figure(self, title: str) -> Figure:
        """Return an empty figure with its title."""
        size = (self.width / 72, self.height / 72)
        figure = Figure(figsize=size, dpi=200, facecolor="white")
        words = "".join(wrapped(title, Lettering(10.5), self.width - 20, lines=1))
        figure.text(
            10 / self.width, 1 - 14 / self.height, words, fontsize=10.5, color=INK, va="center",
            family=FAMILY, parse_math=False,
        )  # fmt: skip
        return figure

    def panel(self, place: int) -> tuple[float, float, float, float]:
        """Return left, bottom, width and height of a panel, as shares of the figure."""
        row, column = divmod(place, self.columns)
        x = column * self.step[0] + self.left
        bottom = self.head + row * self.step[1] + 20.0 + self.high
        w, h = self.width, self.height
        return x / w, 1 - bottom / h, WIDE / w, self.high / h


def _colour(index: int) -> str:
    return COLOURS[Sign.of(index).colour]


def _mark(index: int) -> str:
    return MARKS[Sign.of(index).shape]


def _style(index: int) -> dict[str, Any]:
    return {
        "color": _colour(index),
        "dashes": DASHES[Sign.of(index).dash],
        "linewidth": 1.6,
    }


def _lines(axes: Axes, plot: Plot, titled: bool) -> None:
    places, ticks = plot.places, rounded_ticks(*plot_extent(plot))
    if uses_root(places):
        axes.set_xscale("function", functions=(_root, _square))
    for each in plot.series:
        _line(axes, each)
    for height, name in plot.levels:
        axes.axhline(height, color=QUIET, linewidth=0.8, linestyle=":")
        axes.annotate(
            printable(name), (1, height), xycoords=("axes fraction", "data"), fontsize=7,
            color=QUIET, ha="right", va="bottom", family=FAMILY, parse_math=False,
        )  # fmt: skip
    axes.set_ylim(ticks[0], ticks[-1])
    axes.set_yticks(ticks, [f"{t:.4g}".replace("-", n.MINUS) for t in ticks])
    shown = _apart(places, axes)
    axes.set_xticks(shown, [f"{x:.3g}" for x in shown])
    axes.minorticks_off()
    _frame(axes, plot.title if titled else "")
    words = f"{plot.x_title}{' (square-root scale)' if uses_root(places) else ''}"
    axes.set_xlabel(printable(words), fontsize=8.5, color=INK, family=FAMILY, parse_math=False)
    axes.set_ylabel(
        printable(plot.y_title), fontsize=8.5, color=INK, family=FAMILY, parse_math=False
    )


def _line(axes: Axes, each: Series) -> None:
    known = [(x, v) for x, v in each.points if v.known]
    style = _style(each.index)
    axes.plot(
        [x for x, _ in known], [v.bounds[0] for _, v in known],
        marker=_mark(each.index), markersize=4.5, **style,
    )  # fmt: skip
    spread = [(x, v.spread) for x, v in known if v.spread]
    if len(spread) > 1:
        axes.fill_between(
            [x for x, _ in spread], [s[0] for _, s in spread if s], [s[1] for _, s in spread if s],
            color=style["color"], alpha=0.13, linewidth=0,
        )  # fmt: skip
    for x, value in known:
        if n.has_limits(value.bounds):
            axes.plot([x, x], value.bounds[1:], color=style["color"], linewidth=1.0, alpha=0.8)
    for x, y in each.published:
        _ring(axes, x, y, each.index)


def _ring(axes: Axes, x: float, y: float, index: int) -> None:
    axes.plot(
        [x], [y], marker=_mark(index), markersize=9, markerfacecolor="none",
        markeredgecolor=_colour(index), markeredgewidth=1.3, linestyle="none", zorder=4,
    )  # fmt: skip


def _bars(axes: Axes, panel: Bars) -> None:
    drawn = [v for bar in panel.bars for v in spread_of(bar.value)]
    drawn += [bar.published for bar in panel.bars if n.defined(bar.published)]
    ticks = rounded_ticks(*extent(drawn))
    for k, bar in enumerate(panel.bars):
        colour = _colour(bar.index)
        value, low, high = bar.value.bounds
        if bar.value.known:
            if panel.bodies:
                axes.barh(k, value, height=0.52, color=colour, alpha=0.22)
            axes.plot([value], [k], marker=_mark(bar.index), color=colour, markersize=5)
        if n.has_limits(bar.value.bounds):
            axes.plot([low, high], [k, k], color=colour, linewidth=1.5)
        if bar.value.spread:
            seeds = list(bar.value.seeds.values())
            axes.plot(seeds, [k] * len(seeds), "|", color=colour, markersize=11, alpha=0.8)
        if n.defined(bar.published):
            _ring(axes, bar.published, k, bar.index)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_ylim(len(panel.bars) - 0.4, -0.6)
    axes.set_xlim(ticks[0], ticks[-1])
    axes.set_xticks(ticks, [f"{t:.4g}".replace("-", n.MINUS) for t in ticks])
    names = ["\n".join(wrapped(bar.name, Lettering(8.0), 88.0, lines=2)) for bar in panel.bars]
    axes.set_yticks(range(len(panel.bars)), names, family=FAMILY, parse_math=False)
    _frame(axes, panel.title)


def _frame(axes: Axes, title: str) -> None:
    axes.grid(color="#e9eceb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=QUIET, length=3, labelcolor=INK)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
    words = "".join(wrapped(title, Lettering(9.5), WIDE, lines=1))
    axes.set_title(words, fontsize=9.5, color=INK, loc="left", family=FAMILY, parse_math=False)


def _legend(
    figure: Figure,
    box: _Box,
    place: int,
    per_line: int,
    name: str,
    style: dict[str, Any],
    mark: str,
    solid: bool,
) -> None:
    """Write one entry of the legend at the foot: the stroke, the mark, the name."""
    row, column = divmod(place, per_line)
    y = 1 - (box.height - box.foot + 10.0 + 14.0 * row) / box.height
    x = 10.0 + 170.0 * column
    from matplotlib.lines import Line2D

    face = style["color"] if solid else "none"
    figure.add_artist(
        Line2D(
            [x / box.width, (x + 11) / box.width, (x + 22) / box.width], [y, y, y], marker=mark,
            markevery=[1], markersize=4.5 if solid else 8, markerfacecolor=face, **style,
        )
    )  # fmt: skip
    words = "".join(wrapped(name, Lettering(8.0), 136.0, lines=1))
    figure.text(
        (x + 28) / box.width, y, words, fontsize=8, color=INK, va="center", family=FAMILY,
        parse_math=False,
    )  # fmt: skip


def _apart(places: Sequence[float], axes: Axes) -> list[float]:
    """Return the places whose numbers do not run into one another."""
    at = axes.transAxes.inverted()
    found: list[float] = []
    last = -math.inf
    for x in places:
        here = float(at.transform(axes.transData.transform((x, 0)))[0]) * WIDE
        if here - last >= 24:
            found.append(x)
            last = here
    return found


def _root(values: Any) -> Any:
    import numpy as np

    return np.sqrt(np.maximum(values, 0))


def _square(values: Any) -> Any:
    import numpy as np

    return np.square(values)
