"""Calibration: is an answer right as often as the model is sure of it?

Confidence is the probability of the predicted class (top label), whatever the number of classes;
a single logit has two of them. Every score takes weights (R, N), R replicates of N images, and
returns R rows, so that a bootstrap computes all replicates at once.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from diascope.evaluation.resampling import REPLICATES, Floats, Ints
from diascope.evaluation.statistics import Interval, bootstrap_curve, bootstrap_statistic

BINS = 15


def confidence_of(probabilities: npt.ArrayLike) -> Floats:
    """Return the probability of the most probable class: (N, K) -> (N,), within [1/K, 1]."""
    p = np.asarray(probabilities, dtype=np.float64)
    return p.max(1) if len(p) else np.zeros(0)


def edges_of(confidence: npt.ArrayLike, bins: int = BINS, *, adaptive: bool = False) -> Floats:
    """Return the edges (bins + 1,) of equal width, or such that each bin has as many images.

    A bin holds the images whose confidence lies in (low, high]; the first also those at its
    lower edge. Adaptive edges that fall together leave bins empty.
    """
    if not adaptive:
        return np.linspace(0.0, 1.0, bins + 1)
    edges = np.quantile(np.asarray(confidence, dtype=np.float64), np.linspace(0, 1, bins + 1))
    edges[0], edges[-1] = 0.0, 1.0
    return edges


def bin_numbers(confidence: npt.ArrayLike, edges: Floats) -> Ints:
    """Return the bin of each confidence (N,), from 0."""
    place = np.searchsorted(edges, np.asarray(confidence, dtype=np.float64), side="left") - 1
    return np.clip(place, 0, len(edges) - 2).astype(np.int64)


def calibration_error(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    bins: int = BINS,
    adaptive: bool = False,
) -> Floats:
    """Return the expected calibration error, (N,), (N,) -> (R,), in [0, 1].

    sum_b n_b / N |accuracy_b - confidence_b| over bins of confidence (Naeini et al. 2015; Guo
    et al. 2017, equation 3). It is never 0 by chance: of a perfectly calibrated model it is
    `calibration_error_by_chance`, which shrinks with the images of a bin (Bröcker 2012; Roelofs et
    al. 2022). Images with a confidence that is not finite must be left out before.
    """
    sure, right = (np.asarray(v, dtype=np.float64) for v in (confidence, correct))
    w = np.ones((1, len(sure))) if weights is None else np.asarray(weights, dtype=np.float64)
    if not len(sure):
        return np.full(len(w), np.nan)
    place = bin_numbers(sure, edges_of(sure, bins, adaptive=adaptive))
    gaps = np.zeros((len(sure), bins))
    gaps[np.arange(len(sure)), place] = right - sure
    return np.asarray(np.abs(w @ gaps).sum(1) / w.sum(1))


def calibration_error_by_chance(
    confidence: npt.ArrayLike, *, bins: int = BINS, draws: int = 500, seed: int = 0
) -> float:
    """Return the mean calibration error of a perfect model that is as sure, (N,) -> [0, 1].

    Each answer is right with the probability that the model names, drawn `draws` times. An error
    near this one is no sign of bad calibration.
    """
    sure = np.asarray(confidence, dtype=np.float64)
    if not len(sure):
        return float("nan")
    place = bin_numbers(sure, edges_of(sure, bins))
    members = (place[:, None] == np.arange(bins)).astype(np.float64)
    right = np.random.default_rng(seed).random((draws, len(sure))) < sure
    return float(np.abs((right - sure) @ members).sum(1).mean() / len(sure))


def brier_score(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Floats:
    """Return the Brier score, (N, K), (N,) -> (R,), in [0, 2]: lower is better.

    The mean over images of sum_k (p_k - y_k)^2 (Brier 1950). With two classes it is twice the
    square of one probability's error; always saying 1/K has 1 - 1/K.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    return _mean(((p - (y[:, None] == np.arange(p.shape[1]))) ** 2).sum(1), weights)


def log_loss(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    weights: npt.ArrayLike | None = None,
    *,
    least: float = 1e-12,
) -> Floats:
    """Return the mean negative log-likelihood in nats, (N, K), (N,) -> (R,); 0 is best.

    A probability of the true class under `least` counts as `least`, so that one image that is
    wrong for certain does not make the mean infinite.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    return _mean(-np.log(np.maximum(p[np.arange(len(p)), y], least)), weights)


def calibration_interval(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    groups: npt.ArrayLike | pd.Series,
    *,
    bins: int = BINS,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Return the expected calibration error with an interval over groups.

    Chance raises the error of a resample above that of the images, as it raises theirs above the
    model's. The percentile interval is therefore shifted by the difference of the resamples'
    median from the value, so that it lies around the value; it ends at 0.
    """
    sure, right = np.asarray(confidence), np.asarray(correct)

    def of(limits: float) -> Interval:
        return bootstrap_statistic(
            lambda w: calibration_error(sure, right, w, bins=bins),
            groups,
            replicates=replicates,
            seed=seed,
            level=limits,
        )

    found, middle = of(level), of(0.0)
    shift = middle.low - found.value
    return Interval(
        found.value,
        float(np.maximum(found.low - shift, 0.0)),
        float(np.minimum(found.high - shift, 1.0)),
        level,
        found.images,
        found.groups,
    )


def reliability(
    confidence: npt.ArrayLike,
    correct: npt.ArrayLike,
    groups: npt.ArrayLike | pd.Series,
    edges: Sequence[float] | Floats,
    **options: int | float,
) -> list[tuple[int, float, Interval]]:
    """Return of each bin the number of images, their mean confidence (NaN), and their accuracy."""
    sure, right = (np.asarray(v, dtype=np.float64) for v in (confidence, correct))
    place = bin_numbers(sure, np.asarray(edges))
    inside = place[:, None] == np.arange(len(edges) - 1)  # (N, bins)
    accuracy = bootstrap_curve(np.where(inside, right[:, None], np.nan), groups, **options)  # type: ignore[arg-type]
    counts = inside.sum(0)
    sums = sure @ inside
    return [
        (int(n), float(total / n) if n else float("nan"), found)
        for n, total, found in zip(counts, sums, accuracy, strict=True)
    ]


def _mean(values: Floats, weights: npt.ArrayLike | None) -> Floats:
    """Return the weighted mean of values (N,) in each replicate, (R,)."""
    w = np.ones((1, len(values))) if weights is None else np.asarray(weights, dtype=np.float64)
    return np.asarray((w @ values) / w.sum(1))
