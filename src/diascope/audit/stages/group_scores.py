"""Accuracy by class, source and attribute, each value beside all other images."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from diascope.audit.attributes import FEW, Part, check_attributes, parts_of
from diascope.audit.bench import Bench
from diascope.audit.parts import UNKNOWN, Bounds, GroupScore
from diascope.audit.stages import STAGES, Measured, Stage
from diascope.audit.summarise import bounds
from diascope.evaluation import bootstrap_curve, bootstrap_statistics
from diascope.evaluation.resampling import group_codes

Floats = NDArray[np.float64]
BEYOND = 10  # replicates at least beyond each limit of a corrected interval
MOST = 20_000  # replicates


def _passes(bench: Bench) -> float:
    """Return 1, for the model is not asked; raises `UserError` for an unknown attribute."""
    check_attributes(bench.pixels.dataset, bench.settings.attributes)
    return 1.0


def _measure(bench: Bench) -> Measured:
    dataset, groups = bench.pixels.dataset, bench.groups
    parts = parts_of(dataset, bench.settings.attributes)
    right = bench.table.correct.to_numpy(dtype=np.float64)
    inside = np.zeros((len(right), len(parts)), dtype=bool)
    for k, part in enumerate(parts):
        inside[:, k] = part.rows
    withstood = _withstood(bench)
    accuracy = bootstrap_curve(_of(inside, right), groups, **bench.bootstrap)
    attacked = bootstrap_curve(_of(inside, withstood), groups, **bench.bootstrap)
    level = 1 - 0.05 / max(1, len(parts))
    rest = _differences(bench, inside, right, 0.95)
    corrected = _differences(bench, inside, right, level)
    within = _within(bench, parts, right)
    found = [
        GroupScore(
            attribute=part.attribute,
            value=part.value,
            images=int(part.rows.sum()),
            groups=group_codes(groups[part.rows])[1],
            accuracy=bounds(accuracy[k]),
            rest=rest[k],
            attacked=bounds(attacked[k]),
            rest_corrected=corrected[k],
            within=within[k],
            note=part.note,
        )
        for k, part in enumerate(parts)
    ]
    bench.tell(1)
    return Measured(found, images=len(right))


def _withstood(bench: Bench) -> Floats:
    """Return which images withstand the reference epsilon (N,), NaN where not attacked."""
    if "minimal_epsilon" not in bench.table or bench.reference <= 0:
        return np.full(len(bench.table), np.nan)
    minimal = bench.table.minimal_epsilon.to_numpy(dtype=np.float64)
    return np.where(np.isnan(minimal), np.nan, minimal > bench.reference)


def _of(inside: NDArray[np.bool_], values: Floats) -> Floats:
    """Return a column for each part, NaN outside it, (N, M)."""
    return np.where(inside, values[:, None], np.nan)


def _options(bench: Bench, level: float) -> dict[str, float]:
    """Return the options of a bootstrap that has enough replicates beyond its limits."""
    wanted = math.ceil(2 * BEYOND / (1 - level))
    replicates = max(bench.settings.replicates, min(wanted, MOST))
    return {"replicates": replicates, "seed": bench.settings.seed, "level": level}


def _differences(
    bench: Bench, inside: NDArray[np.bool_], right: Floats, level: float
) -> list[Bounds]:
    """Return the accuracy of each part less that of all other images, from the same resamples."""
    if not inside.shape[1]:
        return []
    part, rest = inside.astype(np.float64), (~inside).astype(np.float64)

    def statistic(w: Floats) -> Floats:  # (R, N) -> (R, M)
        return _ratio(w @ (part * right[:, None]), w @ part) - _ratio(
            w @ (rest * right[:, None]), w @ rest
        )

    options = _options(bench, level)
    found = bootstrap_statistics(statistic, bench.groups, **options)  # type: ignore[arg-type]
    return [
        bounds(interval) if _several(bench, column) else (interval.value, math.nan, math.nan)
        for interval, column in zip(found, inside.T, strict=True)
    ]


def _several(bench: Bench, rows: NDArray[np.bool_]) -> bool:
    """Tell whether images (N,) and the others are of several groups, and not only a few.

    A few images that are all right, or all wrong, would have an interval without a width.
    """
    return all(side.sum() >= FEW and len(set(bench.groups[side])) > 1 for side in (rows, ~rows))


def _within(bench: Bench, parts: list[Part], right: Floats) -> list[Bounds]:
    """Return the difference to the rest within classes: their mean, by the part's images.

    sum_c n_c (accuracy_c - rest_c) / sum_c n_c over the classes c that both have, n_c of them in
    the part: the part against others with its own mix of classes.
    """
    found = []
    classes = bench.pixels.dataset.labels[:, None] == np.arange(bench.classes)  # (N, K)
    for part in parts:
        if part.attribute == "class":
            found.append(UNKNOWN)
            continue
        shared = [
            k for k, c in enumerate(classes.T) if (c & part.rows).any() and (c & ~part.rows).any()
        ]
        if not shared:
            found.append(UNKNOWN)
            continue
        ours = (classes & part.rows[:, None])[:, shared].astype(np.float64)
        theirs = (classes & ~part.rows[:, None])[:, shared].astype(np.float64)

        def statistic(w: Floats, a: Floats = ours, b: Floats = theirs) -> Floats:  # (R,)
            size = w @ a
            gap = _ratio(w @ (a * right[:, None]), size) - _ratio(w @ (b * right[:, None]), w @ b)
            return _ratio(np.nansum(np.where(size > 0, gap * size, 0.0), 1), size.sum(1))

        (interval,) = bootstrap_statistics(statistic, bench.groups, **bench.bootstrap)
        known = _several(bench, part.rows)
        found.append(bounds(interval) if known else (interval.value, math.nan, math.nan))
    return found


def _ratio(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return np.asarray(part / whole)


GROUP_SCORES = STAGES.register("group_scores")(
    Stage(
        kind=list[GroupScore],
        passes=_passes,
        measure=_measure,
        order=15,
        effort=("curve_images", "curve_steps", "queries", "attacks"),
    )
)
