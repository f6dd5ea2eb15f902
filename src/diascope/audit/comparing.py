"""What sets two models apart at the operating point and under everyday corruptions, by pairs.

Only what was measured alike of both: not what a black box withstood beside a white one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.audit.parts import UNKNOWN, CorruptionDifference, OperatingDifference
from diascope.audit.results import Comparison, ModelResult
from diascope.audit.summarise import Summary, bounds
from diascope.evaluation import bootstrap_curve_difference

Floats = NDArray[np.float64]


def with_parts(
    comparison: Comparison, summary: Summary, ours: ModelResult, theirs: ModelResult
) -> Comparison:
    """Return a comparison with the differences of what the stages of both models measured."""
    tables = summary.tables[ours.name], summary.tables[theirs.name]
    found = replace(
        comparison,
        operating=_operating(summary, ours, theirs, tables),
        corruptions=_corruptions(summary, ours, theirs, tables),
    )
    if ours.access != theirs.access:
        found = _unattacked(found, summary)
    if ours.maps and theirs.maps and ours.maps[0].explainer != theirs.maps[0].explainer:
        found = replace(found, localisation={}, localisation_correct={})
    return found


def _unattacked(comparison: Comparison, summary: Summary) -> Comparison:
    """Return a comparison without what was measured by attacks."""
    curve = zip(summary.epsilons, comparison.curve, strict=True)
    return replace(
        comparison,
        curve=[bounds if eps == 0 else UNKNOWN for eps, bounds in curve],
        operating=[each for each in comparison.operating if each.eps == 0],
    )


def _operating(
    summary: Summary,
    ours: ModelResult,
    theirs: ModelResult,
    tables: tuple[pd.DataFrame, pd.DataFrame],
) -> list[OperatingDifference]:
    """Return the differences in sensitivity and specificity at each epsilon that both have."""
    if ours.operating is None or theirs.operating is None:
        return []
    positive = tables[0].label.isin(ours.operating.positive).to_numpy()
    known = {point.eps for point in theirs.operating.points}
    found = []
    for eps in (point.eps for point in ours.operating.points if point.eps in known):
        right = [_right(table, eps) for table in tables]
        both = ~np.isnan(right[0]) & ~np.isnan(right[1])
        sides = np.column_stack([positive, ~positive])
        a, b = (np.where(sides, values[:, None], np.nan) for values in right)
        sensitivity, specificity = bootstrap_curve_difference(
            a, b, summary.groups, **summary.options
        )
        found.append(
            OperatingDifference(
                eps=eps,
                positives=int((both & positive).sum()),
                negatives=int((both & ~positive).sum()),
                sensitivity=bounds(sensitivity),
                specificity=bounds(specificity),
            )
        )
    return found


def _right(table: pd.DataFrame, eps: float) -> Floats:
    """Return whether each decision is right at an epsilon (N,), NaN where it is not known."""
    if eps == 0:
        return _column(table, "threshold:correct")
    minimal = _column(table, "threshold:minimal_epsilon")
    return np.where(np.isnan(minimal), np.nan, minimal > eps)


def _corruptions(
    summary: Summary,
    ours: ModelResult,
    theirs: ModelResult,
    tables: tuple[pd.DataFrame, pd.DataFrame],
) -> list[CorruptionDifference]:
    """Return the difference in accuracy under each corruption that both models met."""
    names = list(_shared(ours, theirs))
    if not names:
        return []
    a, b = (
        np.column_stack([_column(table, f"{name}:{severity}:correct") for name, severity in names])
        for table in tables
    )
    found = bootstrap_curve_difference(a, b, summary.groups, **summary.options)
    return [
        CorruptionDifference(name, severity, interval.images, bounds(interval))
        for (name, severity), interval in zip(names, found, strict=True)
    ]


def _shared(ours: ModelResult, theirs: ModelResult) -> Iterator[tuple[str, int]]:
    known = {(score.name, score.severity) for score in theirs.corruptions}
    for score in ours.corruptions:
        if (score.name, score.severity) in known:
            yield score.name, score.severity


def _column(table: pd.DataFrame, name: str) -> Floats:
    missing: Any = np.full(len(table), np.nan)
    return np.asarray(table.get(name, missing), dtype=np.float64)
