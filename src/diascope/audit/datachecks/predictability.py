"""How well a few numbers of each image tell its label, where they should not.

A linear classifier of the numbers (multinomial logistic regression with an L2 penalty, classes
weighted alike) is trained on four fifths of the groups and asked on the rest, five times over.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from diascope.audit.parts import Severity
from diascope.data import Dataset
from diascope.data.splits import folds
from diascope.errors import UserError
from diascope.evaluation.resampling import Floats
from diascope.evaluation.scores import aurocs
from diascope.evaluation.statistics import Interval, bootstrap_statistics
from diascope.randomness import derive

FOLDS = 5
LARGEST = 6000  # images; of more, that many are drawn
FEWEST = 20  # images and groups of a class; a class with fewer is left out
REPLICATES = 500
PENALTY = 1e-2


@dataclass(frozen=True)
class Predictability:
    """Areas under the ROC curve of a label told from some numbers.

    auroc: of the second class of two, else the mean over classes. best: of the class that is told
    most easily, whose name is `easiest`. images, groups: how many took part.
    """

    auroc: Interval
    best: Interval
    easiest: str
    classes: tuple[str, ...]
    images: int

    @property
    def words(self) -> str:
        """The areas and their intervals, as part of a sentence."""
        several = len(self.classes) > 2
        mean = f"AUROC {self.auroc:.2f}" + (" in the mean of the classes" if several else "")
        most = f", {self.best:.2f} for '{self.easiest}'" if several else ""
        return f"{mean}{most} ({self.images} images, cross-validated by group)"


def graded(found: Predictability | None, grades: Mapping[str, float]) -> Severity | None:
    """Return the gravest severity whose area the easiest class exceeds for certain, else None.

    The lower limit of the interval is what must exceed it; without one, nothing is said.
    """
    if found is None or not found.best.defined:
        return None
    names: tuple[Severity, ...] = ("high", "medium", "low")
    return next((name for name in names if found.best.low > grades[name]), None)


def predictability(
    dataset: Dataset, numbers: NDArray[np.floating], seed: int = 0
) -> Predictability | None:
    """Return how well `numbers` (N, F) tell the labels of `dataset`.

    Columns without a spread tell nothing. None where fewer than two classes have 20 images of 20
    groups, or no column has a spread.
    """
    rows = _drawn(dataset, np.isfinite(numbers).all(1), seed)
    chosen: Floats = np.asarray(numbers[rows], np.float64)
    spread = chosen.std(0) > 1e-9 if len(chosen) else np.zeros(chosen.shape[1], np.bool_)
    part = dataset.take(rows)
    kept = [label for label, n in part.counts.items() if n]
    if len(kept) < 2 or not spread.any():
        return None
    part = replace(part, classes=tuple(kept))
    try:
        fold = folds(part, FOLDS, seed)
    except UserError:
        return None
    told = _cross_validated(chosen[:, spread], part.labels, fold, len(kept))
    return _areas(told, part, seed)


def _drawn(dataset: Dataset, usable: NDArray[np.bool_], seed: int) -> NDArray[np.int64]:
    """Return the rows of large enough classes, at most 6000 of them, in order."""
    labels, groups = dataset.labels, dataset.groups
    enough = [
        k
        for k in range(len(dataset.classes))
        if ((labels == k) & usable).sum() >= FEWEST
        and len(set(groups[(labels == k) & usable])) >= FEWEST
    ]
    rows = np.flatnonzero(usable & np.isin(labels, enough))
    if len(rows) <= LARGEST:
        return rows
    rng = np.random.default_rng(derive(seed, "predictability"))
    return np.sort(rng.permutation(rows)[:LARGEST])


def _cross_validated(
    numbers: Floats, labels: NDArray[np.int64], fold: NDArray[np.int64], classes: int
) -> Floats:
    """Return the probability of each class (N, K), by a classifier that has not seen the image."""
    told = np.zeros((len(labels), classes))
    for k in range(FOLDS):
        train, test = fold != k, fold == k
        mean, deviation = numbers[train].mean(0), numbers[train].std(0)
        scaled = np.clip((numbers - mean) / np.maximum(deviation, 1e-9), -5, 5)
        scaled = np.column_stack([scaled, np.ones(len(scaled))])
        weights = fit(scaled[train], labels[train], classes)
        told[test] = _softmax(scaled[test] @ weights)
    return told


def fit(numbers: Floats, labels: NDArray[np.int64], classes: int) -> Floats:
    """Return the weights (F, K) of a logistic regression; the last column of numbers is 1.

    Minimises the mean cross-entropy, each class weighted alike, plus PENALTY / 2 times the sum
    of squares of all weights but those of the last column.
    """
    truth = np.eye(classes)[labels]
    share = truth.sum(0)
    weight = 1 / (np.maximum(share, 1)[labels] * (share > 0).sum())
    shape = (numbers.shape[1], classes)
    penalty = np.full(shape, PENALTY)
    penalty[-1] = 0

    def loss(flat: Floats) -> tuple[float, Floats]:
        theta = flat.reshape(shape)
        logits = numbers @ theta
        top = logits.max(1, keepdims=True)
        total = np.log(np.exp(logits - top).sum(1, keepdims=True)) + top
        wrong = (total[:, 0] - logits[np.arange(len(labels)), labels]) @ weight
        slope = numbers.T @ ((np.exp(logits - total) - truth) * weight[:, None])
        cost = wrong + 0.5 * (penalty * theta**2).sum()
        return float(cost), (slope + penalty * theta).ravel()

    found = scipy.optimize.minimize(
        loss, np.zeros(shape).ravel(), jac=True, method="L-BFGS-B", options={"maxiter": 100}
    )
    return np.asarray(found.x.reshape(shape))


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(powers / powers.sum(1, keepdims=True))


def _areas(told: Floats, part: Dataset, seed: int) -> Predictability:
    def of_weights(weights: Floats) -> Floats:  # (R, 1 + K)
        each = aurocs(told, part.labels, weights)
        return np.column_stack([each[:, 1] if each.shape[1] == 2 else each.mean(1), each])

    area, *each = bootstrap_statistics(
        of_weights, part.groups, replicates=REPLICATES, seed=derive(seed, "areas")
    )
    first = int(np.nanargmax([interval.value for interval in each]))
    return Predictability(area, each[first], part.classes[first], part.classes, len(part))
