"""The scores in other hospitals, and how far they lie below those at home."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.audit.attackers import main_attack, minimal_on_grid, passes_of
from diascope.audit.bench import Bench, Rows
from diascope.audit.parts import UNKNOWN, Bounds, Elsewhere
from diascope.audit.stages import STAGES, Measured, Stage
from diascope.audit.summarise import SCORES, bounds
from diascope.data import Pixels
from diascope.evaluation import (
    bootstrap_curve,
    bootstrap_independent,
    predict,
    score_predictions,
)
from diascope.evaluation.scores import accuracy, balanced_accuracy, macro_auroc

Floats = NDArray[np.float64]


def _grid(bench: Bench) -> list[float]:
    """Return the epsilons up to the reference: those by which accuracy there is known at home."""
    return [eps for eps in bench.epsilons if 0 < eps <= bench.reference]


def _drawn(bench: Bench, pixels: Pixels) -> Rows:
    rows = bench.drawn(bench.effort.attack_images, pixels)
    return rows if _grid(bench) else rows[:0]


def _each(bench: Bench) -> float:
    """Return how many passes the attack on one image costs."""
    cost = passes_of(main_attack(bench.settings, bench.subject), bench.classes)
    return len(_grid(bench)) * cost + 1


def _passes(bench: Bench) -> float:
    return sum(
        len(pixels) + len(_drawn(bench, pixels)) * _each(bench)
        for pixels in bench.elsewhere.values()
    )


def _measure(bench: Bench) -> Measured:
    found = [_one(bench, name, pixels) for name, pixels in bench.elsewhere.items()]
    return Measured(found, images=sum(len(pixels) for pixels in bench.elsewhere.values()))


def _one(bench: Bench, name: str, pixels: Pixels) -> Elsewhere:
    table = predict(bench.model, pixels, batch_size=bench.batch_size, device=bench.device)
    table["group"] = pixels.dataset.groups
    bench.tell(len(pixels))
    there = set(table.label)
    home = _at_home(bench)
    home = home[home.label.isin(there)]
    rows = _drawn(bench, pixels)
    return Elsewhere(
        name=name,
        images=len(table),
        groups=int(table.group.nunique()),
        scores=_scores(bench, table),
        drop=_drops(bench, home, table),
        attacked=_attacked(bench, pixels, rows),
        here=_scores(bench, home),
        missing=[c for c in pixels.dataset.classes if c not in there],
        attacked_images=len(rows),
    )


def _at_home(bench: Bench) -> pd.DataFrame:
    """Return the predictions of the audited images, less those that count as elsewhere too."""
    away = {i for pixels in bench.elsewhere.values() for i in pixels.dataset.ids.tolist()}
    home = np.array([i not in away for i in bench.pixels.dataset.ids.tolist()], dtype=bool)
    return bench.table.assign(group=bench.groups)[home]


def _scores(bench: Bench, table: pd.DataFrame) -> dict[str, Bounds]:
    if not len(table):
        return dict.fromkeys(SCORES, UNKNOWN)
    found = score_predictions(table, **bench.bootstrap)
    return {name: bounds(found[name]) for name in SCORES}


def _drops(bench: Bench, home: pd.DataFrame, away: pd.DataFrame) -> dict[str, Bounds]:
    """Return each score at home less that elsewhere, the two resampled apart."""
    if not len(home):
        return dict.fromkeys(SCORES, UNKNOWN)
    found = bootstrap_independent(
        _statistic(bench, home), home.group, _statistic(bench, away), away.group, **bench.bootstrap
    )
    alone = any(
        side.groupby("label").group.nunique().eq(1).any() for side in (home, away)
    )  # a class of one group tells nothing of its spread
    values = [
        (i.value, np.nan, np.nan) if alone and name != "accuracy" else bounds(i)
        for name, i in zip(SCORES, found, strict=True)
    ]
    return dict(zip(SCORES, values, strict=True))


def _statistic(bench: Bench, table: pd.DataFrame) -> Callable[[Floats], Floats]:
    """Return a function from weights (R, N) to accuracy, balanced accuracy and AUROC, (R, 3)."""
    classes = bench.pixels.dataset.classes
    number = {name: k for k, name in enumerate(classes)}
    labels = table.label.map(number).to_numpy(dtype=np.int64)
    right = table.correct.to_numpy(dtype=np.float64)
    probabilities = table[[f"prob_{name}" for name in classes]].to_numpy(dtype=np.float64)

    def scores(w: Floats) -> Floats:
        return np.column_stack(
            [
                accuracy(right, w),
                balanced_accuracy(right, labels, len(classes), w),
                macro_auroc(probabilities, labels, w),
            ]
        )

    return scores


def _attacked(bench: Bench, pixels: Pixels, rows: Rows) -> Bounds:
    """Return the accuracy at the reference epsilon, by the attack of the curve at home."""
    if not len(rows):
        return UNKNOWN
    attack, grid = main_attack(bench.settings, bench.subject), _grid(bench)
    each, minimal = _each(bench) / len(grid), []
    for part in bench.batches(rows):
        minimal.append(
            minimal_on_grid(
                bench.model,
                pixels.x(part, bench.device),
                pixels.y(part, bench.device),
                attack,
                grid,
                generator=bench.seeded("attack"),
                ids=pixels.ids(part).to(bench.device),
                batch_size=bench.batch_size,
                progress=lambda settled: bench.tell(settled * each),
            )
        )
    withstood = (np.concatenate(minimal) > bench.reference).astype(np.float64)
    groups = pixels.dataset.groups[rows]
    return bounds(bootstrap_curve(withstood[:, None], groups, **bench.bootstrap)[0])


ELSEWHERE = STAGES.register("elsewhere")(
    Stage(
        kind=list[Elsewhere],
        passes=_passes,
        measure=_measure,
        needs=("elsewhere",),
        order=35,
        share=0.4,
        effort=("elsewhere_images", "attack_images", "curve_steps", "queries"),
    )
)
