"""ROC curves of several models, with their areas and intervals in the legend: P3, figure 3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from diascope.evaluation.resampling import REPLICATES
from diascope.evaluation.scores import auroc
from diascope.evaluation.statistics import Interval, bootstrap_statistic
from diascope.report import numbers as n
from diascope.report.charts import Sign
from diascope.report.grid import INK, QUIET
from diascope.report.lettering import FAMILY, Lettering, printable, wrapped

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#b0558a", "#b78300", "#2f93cf")  # as in the report
DASHES = ((), (7, 3), (2, 3), (9, 3, 2, 3), (12, 4), (4, 2, 1, 2))
PANEL, LEGEND = 236.0, 17.0  # points: side of a panel, a line of its legend


@dataclass(frozen=True)
class Scored:
    """The scores (N,) of one model, which images are positive (N,), and their groups (N,)."""

    scores: npt.ArrayLike
    positive: npt.ArrayLike
    groups: npt.ArrayLike | pd.Series | None = None

    def area(self, replicates: int = REPLICATES, seed: int = 0) -> Interval:
        """Return the AUROC with its interval from a bootstrap over groups."""
        groups = np.arange(np.size(self.scores)) if self.groups is None else self.groups
        return bootstrap_statistic(
            lambda weights: auroc(self.scores, self.positive, weights),
            groups,
            replicates=replicates,
            seed=seed,
        )


def roc_curve(
    scores: npt.ArrayLike, positive: npt.ArrayLike
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the false and true positive rates at each distinct threshold, from (0, 0) to (1, 1).

    scores, positive: (N,). Equal scores are one step, as in `auroc`, whose area these points have
    under the straight lines between them. NaN where a class is absent.
    """
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    last = np.flatnonzero(np.r_[values[1:] != values[:-1], True][: len(values)])
    with np.errstate(invalid="ignore"):
        rates = [np.r_[0, np.cumsum(of)[last]] / np.sum(of) for of in (~truth, truth)]
    return rates[0], rates[1]


def roc_chart(
    panels: Mapping[str, Mapping[str, Scored]],
    *,
    title: str = "",
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Figure:
    """Return panels side by side, such as one a hospital, with a curve for each model.

    The legend under each names the AUROC with its 95% interval, a bootstrap over groups. A model
    keeps its colour and its dashes in every panel.
    """
    names = list(dict.fromkeys(name for models in panels.values() for name in models))
    lines = max((len(models) for models in panels.values()), default=0)
    head = 50.0 if title else 28.0
    height = head + PANEL + 44.0 + LEGEND * lines + 10.0
    width = len(panels) * (PANEL + 62.0) + 6.0
    figure = Figure(figsize=(width / 72, height / 72), facecolor="white")
    if title:
        figure.text(
            14 / width, 1 - 14 / height, printable(title), fontsize=10.5, color=INK, va="center",
            family=FAMILY, parse_math=False,
        )  # fmt: skip
    for i, (panel, models) in enumerate(panels.items()):
        left = 48.0 + i * (PANEL + 62.0)
        box = (left / width, 1 - (head + PANEL) / height, PANEL / width, PANEL / height)
        axes = figure.add_axes(box)
        _frame(axes, panel, first=i == 0)
        for k, (name, scored) in enumerate(models.items()):
            place = names.index(name)
            false, true = roc_curve(scored.scores, scored.positive)
            style: dict[str, Any] = {
                "color": COLOURS[Sign.of(place).colour],
                "dashes": DASHES[Sign.of(place).dash],
                "linewidth": 1.7,
            }
            axes.plot(false, true, solid_joinstyle="miter", **style)
            _legend(axes, name, scored.area(replicates, seed), k, style)
    return figure


def _frame(axes: Axes, name: str, first: bool) -> None:
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=0.8, linestyle=":")
    axes.set_xlim(-0.01, 1.01)
    axes.set_ylim(-0.01, 1.01)
    ticks = [0, 0.25, 0.5, 0.75, 1]
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.set_yticks(ticks, [f"{t:g}" for t in ticks])
    axes.grid(color="#e9eceb", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8, colors=QUIET, length=3)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(QUIET)
    axes.set_xlabel("False positive rate", fontsize=8.5, color=INK, family=FAMILY)
    if first:
        axes.set_ylabel("True positive rate", fontsize=8.5, color=INK, family=FAMILY)
    words = "".join(wrapped(name, Lettering(9.5), PANEL, lines=1))
    axes.set_title(words, fontsize=9.5, color=INK, loc="left", family=FAMILY, parse_math=False)


def _legend(axes: Axes, name: str, area: Interval, place: int, style: Mapping[str, Any]) -> None:
    """Write a line of the legend beneath a panel: the model's stroke, its name and area."""
    y = -(44.0 + LEGEND * (place + 0.5)) / PANEL
    axes.plot([0, 0.17], [y, y], transform=axes.transAxes, clip_on=False, **style)
    told = n.ranged((area.value, area.low, area.high))
    room = PANEL * 0.8 - Lettering(8.5).width(f"AUROC {told}") - 8.0
    words = "".join(wrapped(name, Lettering(8.5), room, lines=1))
    for x, text, align in ((0.2, words, "left"), (1.0, f"AUROC {told}", "right")):
        axes.text(
            x, y, text, transform=axes.transAxes, fontsize=8.5, color=INK, va="center", ha=align,
            family=FAMILY, parse_math=False,
        )  # fmt: skip
