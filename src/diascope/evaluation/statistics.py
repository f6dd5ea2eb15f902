"""Bootstrap intervals over groups, vectorised: means, paired differences, curves, statistics.

All intervals are percentile intervals (Efron 1979) of a bootstrap that draws whole groups
(patients, lesions) with replacement. They speak of new groups from the same source seen by
the same trained model; nothing here speaks of new training seeds. Fewer than two groups with a
defined value tell nothing of the spread: the limits are then NaN.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from diascope.evaluation.resampling import REPLICATES, Floats, draw_groups, group_codes

Groups = npt.ArrayLike | pd.Series
Statistic = Callable[[Floats], Floats]  # weights (R, N) -> (R,) or (R, M)
_SHARE, _APART = (0.0, 1.0), (-1.0, 1.0)  # what values that are right or wrong, or their pairs, are


@dataclass(frozen=True)
class Interval:
    """A value with its interval: limits of probability `level`, NaN where undefined.

    `images` and `groups` count what the value was defined on.
    """

    value: float
    low: float
    high: float
    level: float = 0.95
    images: int = 0
    groups: int = 0

    @property
    def defined(self) -> bool:
        """Tell whether the interval has both limits."""
        return bool(np.isfinite(self.low) and np.isfinite(self.high))

    def excludes(self, value: float) -> bool:
        """Tell whether `value` lies outside; an undefined interval excludes nothing."""
        return bool(value < self.low or value > self.high)

    def __format__(self, spec: str) -> str:
        if np.isnan(self.value):
            return "undefined"
        spec = spec or ".3f"
        limits = f"{self.low:{spec}}, {self.high:{spec}}" if self.defined else "undefined"
        return f"{self.value:{spec}} [{limits}]"

    def __str__(self) -> str:
        return format(self)


def bootstrap_mean(
    values: npt.ArrayLike,
    groups: Groups,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
    proportion: bool = False,
) -> Interval:
    """Return the mean over images of `values` (N,) with its interval; NaN values are left out.

    Where all values are equal the bootstrap sees no spread and the interval has no width. With
    `proportion`, for values in [0, 1], unanimous ones get the exact binomial limit over the groups
    instead (Clopper and Pearson 1934): none of 50 is not "0 for certain".
    """
    columns = np.asarray(values, dtype=np.float64)[:, None]
    return _means(columns, groups, replicates, seed, level, _SHARE if proportion else None)[0]


def bootstrap_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups: Groups,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
    proportion: bool = False,
) -> Interval:
    """Return the mean of a - b, paired by image, over the images where both (N,) are defined.

    With `proportion`, for a and b in [0, 1], such as whether two models are right: where no pair
    differs the limits are those of a share of groups that do differ, and go either way, of which
    none was seen (Clopper and Pearson 1934): two models that agree on 50 images are not "0 apart
    for certain". So it is where every pair differs alike.
    """
    columns = _paired(a, b)[:, None]
    return _means(columns, groups, replicates, seed, level, _APART if proportion else None)[0]


def bootstrap_curve(
    correct: npt.ArrayLike,
    groups: Groups,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> list[Interval]:
    """Return the mean of each column of `correct` (N, E), values in [0, 1]: a robustness curve.

    All columns share their resamples. The intervals hold point by point, not for the whole
    curve at once.
    """
    columns = np.asarray(correct, dtype=np.float64)
    return _means(columns, groups, replicates, seed, level, _SHARE)


def bootstrap_curve_difference(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups: Groups,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> list[Interval]:
    """Return the mean of each column of a - b, (N, E) each in [0, 1], paired by image.

    Where no pair of a column differs, or all do alike, its limits are exact: see
    `bootstrap_difference`.
    """
    return _means(_paired(a, b), groups, replicates, seed, level, _APART)


def bootstrap_p_value(
    a: npt.ArrayLike,
    b: npt.ArrayLike,
    groups: Groups,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> float:
    """Return the two-sided p of "a - b is zero on average", in (0, 1]; NaN where undefined.

    Twice the smaller share of replicates on either side of zero, counted with one added to both
    parts (Davison and Hinkley 1997, section 4.2), so that it is never zero. It agrees with the
    percentile interval: p < 0.05 where the interval of level 0.95 excludes zero.
    """
    columns = _paired(a, b)[:, None]
    means, count = _mean_replicates(columns, groups, replicates, seed)
    means = means[~np.isnan(means)]
    if count[0] < 2 or not len(means):
        return float("nan")
    least = min(int((means <= 0).sum()), int((means >= 0).sum()))
    return min(1.0, 2 * (least + 1) / (len(means) + 1))


def bootstrap_statistics(
    statistic: Statistic,
    groups: Groups,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> list[Interval]:
    """Return M statistics that `statistic` computes from weights: (R, N) -> (R, M).

    The value is the statistic at weights of one. A replicate where a statistic is NaN (a class
    was not drawn) is left out; where this happens in half of them the limits are NaN.
    """
    codes, count = group_codes(groups)
    if not len(codes):
        return [_nothing(level)]
    values = np.asarray(statistic(np.ones((1, len(codes)))))[0]
    many = np.ndim(values) > 0
    drawn = [
        statistic(chunk[:, codes])
        for chunk in draw_groups(count, replicates, seed, width=len(codes))
    ]
    samples = np.concatenate(drawn)
    lows, highs = _limits(samples if many else samples[:, None], level)
    if count < 2:
        lows, highs = np.full_like(lows, np.nan), np.full_like(highs, np.nan)
    return [
        Interval(float(v), float(low), float(high), level, len(codes), count)
        for v, low, high in zip(np.atleast_1d(values), lows, highs, strict=True)
    ]


def bootstrap_statistic(
    statistic: Statistic,
    groups: Groups,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the one statistic that `statistic` computes from weights: (R, N) -> (R,)."""
    return bootstrap_statistics(statistic, groups, replicates=replicates, seed=seed, level=level)[0]


def bootstrap_independent(
    here: Statistic,
    groups_here: Groups,
    there: Statistic,
    groups_there: Groups,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> list[Interval]:
    """Return M statistics of one sample less those of another that shares no group with it.

    Each sample is resampled by itself (Efron and Tibshirani 1993, section 8.3): `here` and
    `there` map weights (R, N) of their own images to (R, M). Images and groups are counted
    together; the limits are NaN where either has fewer than two groups.
    """
    sides = [(here, groups_here), (there, groups_there)]
    coded = [group_codes(groups) for _, groups in sides]
    values, samples = [], []
    for number, ((statistic, _), (codes, count)) in enumerate(zip(sides, coded, strict=True)):
        if not len(codes):
            return [_nothing(level)]
        values.append(np.atleast_1d(np.asarray(statistic(np.ones((1, len(codes)))))[0]))
        chunks = draw_groups(count, replicates, 2 * seed + number, width=len(codes))
        drawn = np.concatenate([statistic(chunk[:, codes]) for chunk in chunks])
        samples.append(drawn.reshape(replicates, -1))
    lows, highs = _limits(samples[0] - samples[1], level)
    if min(count for _, count in coded) < 2:
        lows, highs = np.full_like(lows, np.nan), np.full_like(highs, np.nan)
    images, groups = sum(len(codes) for codes, _ in coded), sum(count for _, count in coded)
    return [
        Interval(float(a - b), float(low), float(high), level, images, groups)
        for a, b, low, high in zip(*values, lows, highs, strict=True)
    ]


def unseen_share(count: int, level: float = 0.95) -> float:
    """Return the upper limit of the share of groups of a kind of which none of `count` is.

    Two-sided, as Clopper and Pearson (1934): the share at which none is seen with (1 - level) / 2.
    """
    return float(1 - ((1 - level) / 2) ** (1 / count))


def _paired(a: npt.ArrayLike, b: npt.ArrayLike) -> Floats:
    first, second = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if first.shape != second.shape:
        raise ValueError(f"shapes {first.shape} and {second.shape} do not pair")
    return first - second


def _means(
    values: Floats,
    groups: Groups,
    replicates: int,
    seed: int,
    level: float,
    reach: tuple[float, float] | None,
) -> list[Interval]:
    """Return the mean and interval of each column of `values` (N, E).

    reach: the least and the largest value there can be; with it a column of equal values gets the
    limits that its mean has where as many groups as none of those seen may lie at either end.
    """
    if not values.size:
        return [_nothing(level)] * values.shape[1]
    samples, counts = _mean_replicates(values, groups, replicates, seed)
    lows, highs = _limits(samples, level)
    intervals = []
    for column, count, low, high in zip(values.T, counts, lows, highs, strict=True):
        there = column[~np.isnan(column)]
        if not len(there):
            intervals.append(_nothing(level))
            continue
        value = float(there.mean())
        if count < 2:
            low = high = np.nan
        elif reach is not None and (there == there[0]).all():
            slack = unseen_share(int(count), level)
            low, high = value - slack * (value - reach[0]), value + slack * (reach[1] - value)
        intervals.append(Interval(value, float(low), float(high), level, len(there), int(count)))
    return intervals


def _mean_replicates(
    values: Floats, groups: Groups, replicates: int, seed: int
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Return the mean of each column in each replicate (R, E), and its defined groups (E,).

    A mean is a ratio of sums over groups, so the work is two products with (G, E).
    """
    codes, _ = group_codes(groups)
    if values.shape[0] != len(codes):
        raise ValueError(f"{values.shape[0]} images, but {len(codes)} groups")
    there = ~np.isnan(values)
    codes = codes[there.any(1)]
    values, there = values[there.any(1)], there[there.any(1)]
    known, codes = np.unique(codes, return_inverse=True)
    count = len(known)
    sums = np.zeros((count, values.shape[1]))
    sizes = np.zeros((count, values.shape[1]))
    np.add.at(sums, codes, np.where(there, values, 0.0))
    np.add.at(sizes, codes, there.astype(np.float64))
    if not count:
        return np.full((replicates, values.shape[1]), np.nan), np.zeros(values.shape[1], np.int64)
    with np.errstate(invalid="ignore"):
        drawn = [
            (chunk @ sums) / (chunk @ sizes)
            for chunk in draw_groups(count, replicates, seed, width=values.shape[1])
        ]
    return np.concatenate(drawn), (sizes > 0).sum(0)


def _limits(samples: Floats, level: float) -> tuple[Floats, Floats]:
    """Return the percentile limits of each column of `samples` (R, M); NaN samples left out."""
    lows, highs = np.full(samples.shape[1], np.nan), np.full(samples.shape[1], np.nan)
    tail = (1 - level) / 2
    for m, column in enumerate(samples.T):
        there = column[~np.isnan(column)]
        if 2 * len(there) > len(column):
            lows[m], highs[m] = np.quantile(there, [tail, 1 - tail])
    return lows, highs


def _nothing(level: float) -> Interval:
    return Interval(float("nan"), float("nan"), float("nan"), level)
