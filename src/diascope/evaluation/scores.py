"""Scores of a classifier, each with weights, so that a bootstrap computes all replicates at once.

Weights have the shape (R, N): R replicates of N images; every score returns R rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from diascope.evaluation.resampling import REPLICATES, Floats, Ints, group_codes
from diascope.evaluation.statistics import Interval, bootstrap_mean, bootstrap_statistics

Bools = npt.NDArray[np.bool_]


def accuracy(correct: npt.ArrayLike, weights: npt.ArrayLike | None = None) -> Floats:
    """Return the share of images that are right: correct (N,), weights (R, N) -> (R,)."""
    right = np.asarray(correct, dtype=np.float64)
    w = _weights(weights, len(right))
    return _ratio(w @ right, w.sum(1))


def recalls(
    correct: npt.ArrayLike, labels: npt.ArrayLike, k: int, weights: npt.ArrayLike | None = None
) -> Floats:
    """Return the share of right images in each of `k` classes, (R, K); NaN for an absent class."""
    right, classes = np.asarray(correct, dtype=np.float64), np.asarray(labels)
    w = _weights(weights, len(right))
    members = (classes[:, None] == np.arange(k)).astype(np.float64)  # (N, K)
    return _ratio(w @ (members * right[:, None]), w @ members)


def balanced_accuracy(
    correct: npt.ArrayLike, labels: npt.ArrayLike, k: int, weights: npt.ArrayLike | None = None
) -> Floats:
    """Return the mean of the recalls of the classes among `labels` (N,): (R,).

    A class that no label names is left out; a row whose weights miss a class that a label names
    is NaN, since it would measure something else.
    """
    present = np.isin(np.arange(k), np.asarray(labels))
    return _mean(recalls(correct, labels, k, weights)[:, present])


def auroc(
    scores: npt.ArrayLike, positive: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Floats:
    """Return the area under the ROC curve of `scores` (N,) for `positive` (N,) bool: (R,).

    The weighted probability that a positive image scores above a negative one, ties counted half
    (Hanley and McNeil 1982). NaN where a row has no positive or no negative image, and where a
    score is NaN.
    """
    values, truth = np.asarray(scores), np.asarray(positive, dtype=bool)
    w = _weights(weights, len(values))
    if not len(values) or np.isnan(values).any():
        return np.full(len(w), np.nan)
    order = np.argsort(values, kind="stable")
    values, truth = values[order], truth[order]
    ties = np.flatnonzero(np.r_[True, values[1:] != values[:-1]])  # (U,) first of each value
    up = _tie_sums(w, order, truth, ties)  # (R, U) weight of the positives at each value
    down = _tie_sums(w, order, ~truth, ties)
    below = np.cumsum(down, axis=1)
    positives, negatives = up.sum(1), down.sum(1)
    below -= 0.5 * down
    return _ratio(np.einsum("ru,ru->r", up, below), positives * negatives)


def aurocs(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Floats:
    """Return each class's AUROC against the rest: (N, K), (N,) -> (R, K); NaN where absent."""
    p, classes = np.asarray(probabilities), np.asarray(labels)
    w = _weights(weights, len(p))
    columns = [auroc(p[:, c], classes == c, w) for c in range(p.shape[1])]
    return np.stack(columns, axis=1)


def macro_auroc(
    probabilities: npt.ArrayLike, labels: npt.ArrayLike, weights: npt.ArrayLike | None = None
) -> Floats:
    """Return the AUROC of class 1 of two, or the mean over the classes present against the rest.

    Probabilities (N, K), labels (N,) -> (R,). Classes that no label names are left out.
    """
    p, classes = np.asarray(probabilities), np.asarray(labels)
    if p.shape[1] == 2:
        return auroc(p[:, 1], classes == 1, weights)
    present = np.flatnonzero(np.isin(np.arange(p.shape[1]), classes))
    w = _weights(weights, len(p))
    columns = [auroc(p[:, c], classes == c, w) for c in present]
    return _mean(np.stack(columns, axis=1)) if columns else np.full(len(w), np.nan)


def score_table(
    probabilities: npt.ArrayLike,
    labels: npt.ArrayLike,
    groups: npt.ArrayLike | pd.Series,
    *,
    classes: Sequence[str] | None = None,
    predicted: npt.ArrayLike | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, Interval]:
    """Return the scores of N images by name: probabilities (N, K), labels (N,) in 0 ... K-1.

    `accuracy`, `balanced_accuracy`, `auroc` (class 1 of two; else the macro mean of one class
    against the rest), `recall_<class>` and, for more than two classes, `auroc_<class>`; beside
    them `majority_share` (the accuracy of always naming the commonest class) and `chance` (1/K,
    exact). An image whose probabilities are not finite counts as wrong. A class without images
    is NaN and left out of the means; a class whose images are all of one group has values and no
    limits, and so have the means over classes then. `predicted` (N,) defaults to the most
    probable class.
    """
    p, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=np.int64)
    k = p.shape[1]
    names = list(classes) if classes is not None else [str(c) for c in range(k)]
    guess = p.argmax(1) if predicted is None else np.asarray(predicted)
    correct = (guess == truth) & np.isfinite(p).all(1)
    options = {"replicates": replicates, "seed": seed, "level": level}

    def share(values: Bools | Floats) -> Interval:
        return bootstrap_mean(values, groups, proportion=True, **options)  # type: ignore[arg-type]

    def of_weights(w: Floats) -> Floats:  # (R, 2 + K)
        each = aurocs(p, truth, w)
        present = np.isin(np.arange(k), truth)
        macro = each[:, 1] if k == 2 else _mean(each[:, present])
        return np.column_stack([balanced_accuracy(correct, truth, k, w), macro, each])

    if len(truth):
        found = bootstrap_statistics(of_weights, groups, **options)  # type: ignore[arg-type]
    else:
        found = [share(correct)] * (2 + k)
    per_class = _groups_per_class(truth, groups, k)
    thin = per_class == 1
    scarce = [bool(thin.any())] * 2 + thin.tolist()
    balanced, area, *areas = [
        _without_limits(i) if lone else i for i, lone in zip(found, scarce, strict=True)
    ]
    table = {"accuracy": share(correct), "balanced_accuracy": balanced, "auroc": area}
    for c, name in enumerate(names):
        table[f"recall_{name}"] = share(np.where(truth == c, correct.astype(np.float64), np.nan))
    if k > 2:
        table |= {f"auroc_{name}": interval for name, interval in zip(names, areas, strict=True)}
    commonest = np.bincount(truth, minlength=k).argmax()
    table["majority_share"] = share(truth == commonest)
    table["chance"] = Interval(1 / k, 1 / k, 1 / k, level, len(truth))
    return table


def _groups_per_class(labels: Ints, groups: npt.ArrayLike | pd.Series, k: int) -> Ints:
    codes, _ = group_codes(groups)
    pairs = np.unique(np.stack([labels, codes], axis=1), axis=0)
    return np.bincount(pairs[:, 0], minlength=k)


def _without_limits(interval: Interval) -> Interval:
    nan = float("nan")
    return Interval(
        interval.value, nan, nan, interval.level, images=interval.images, groups=interval.groups
    )


def _weights(weights: npt.ArrayLike | None, n: int) -> Floats:
    return np.ones((1, n)) if weights is None else np.asarray(weights, dtype=np.float64)


def _tie_sums(weights: Floats, order: Ints, member: Bools, ties: Ints) -> Floats:
    """Return the weight of the members at each distinct value: (R, U)."""
    columns = weights[:, order] * member
    return columns if len(ties) == len(order) else np.add.reduceat(columns, ties, axis=1)


def _ratio(part: Floats, whole: Floats) -> Floats:
    with np.errstate(invalid="ignore"):
        return part / whole


def _mean(columns: Floats) -> Floats:
    """Return the mean over columns (R, M) -> (R,), NaN for no column."""
    return columns.mean(1) if columns.shape[1] else np.full(len(columns), np.nan)
