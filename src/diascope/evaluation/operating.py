"""The operating point: positive classes against the rest at one threshold.

Scores (N,) are larger for the positive: probabilities, or log odds where a head saturates. An
image is called positive where its score reaches the threshold, score >= t; a score that is NaN
makes the decision wrong, whatever the image is. Everything that is undefined is NaN.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from diascope.errors import UserError
from diascope.evaluation.resampling import REPLICATES, Floats
from diascope.evaluation.statistics import Interval, bootstrap_mean, bootstrap_statistics

Bools = npt.NDArray[np.bool_]
Rule = Literal["sensitivity", "youden", "half"]
RULES = ("sensitivity", "youden", "half")


@dataclass(frozen=True)
class Roc:
    """The points of a ROC curve, from nothing called positive to everything: (M,) each.

    thresholds: inf, then every score that occurs, descending; sensitivity and specificity: in
    [0, 1], NaN where there are no positive or no negative images.
    """

    thresholds: Floats
    sensitivity: Floats
    specificity: Floats


@dataclass(frozen=True)
class Decisions:
    """How good decisions are: intervals, and counts of images.

    missed: positive images called negative; false_alarms: negative ones called positive. ppv and
    npv: the probability that a call is right where `prevalence` of all images are positive.
    """

    sensitivity: Interval
    specificity: Interval
    ppv: Interval
    npv: Interval
    prevalence: float
    positives: int
    negatives: int
    missed: int
    false_alarms: int


def positive_score(probabilities: npt.ArrayLike, positive: Collection[int]) -> Floats:
    """Return the sum of the probabilities (N, K) of the positive classes, (N,).

    Raises `UserError` where the positive classes are none or all of the K, or not among them.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    chosen = sorted(set(positive))
    if not chosen or not set(chosen) < set(range(p.shape[1])):
        raise UserError(
            f"positive classes {chosen}: name some, not all, of the {p.shape[1]} classes"
        )
    total: Floats = p[:, chosen].sum(1)
    return total


def roc(scores: npt.ArrayLike, positive: npt.ArrayLike) -> Roc:
    """Return the ROC curve of scores (N,) for positive (N,) bool, every distinct score a point."""
    values, truth = _checked(scores, positive)
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    last = np.flatnonzero(np.r_[values[1:] != values[:-1], len(values) > 0])
    up, down = np.cumsum(truth)[last], np.cumsum(~truth)[last]
    with np.errstate(invalid="ignore"):
        return Roc(
            np.r_[np.inf, values[last]],
            np.r_[0, up] / np.float64(truth.sum()),
            1 - np.r_[0, down] / np.float64((~truth).sum()),
        )


def choose_threshold(
    scores: npt.ArrayLike,
    positive: npt.ArrayLike,
    *,
    rule: Rule = "sensitivity",
    wanted: float = 0.9,
) -> float:
    """Return the threshold that `rule` chooses of scores (N,) and positive (N,) bool.

    "sensitivity": the largest at which the sensitivity reaches `wanted`. "youden": the one of the
    largest sensitivity + specificity - 1 (Youden 1950), the largest of several. "half": 0.5, where
    scores are probabilities. NaN where the images cannot tell: no positive one, for "youden" no
    negative one, or one score for all. Raises `UserError` for a wanted sensitivity outside (0, 1].
    """
    if rule not in RULES:
        raise UserError(f"rule '{rule}': one of {', '.join(RULES)}")
    if not 0 < wanted <= 1:
        raise UserError(f"sensitivity {wanted}: above 0 and at most 1")
    if rule == "half":
        return 0.5
    values, truth = _checked(scores, positive)
    if not truth.any() or (values == values[0]).all():
        return float("nan")
    if rule == "sensitivity":
        needed = max(1, int(np.ceil(wanted * truth.sum() - 1e-9)))
        threshold = float(np.sort(values[truth])[-needed])
    elif truth.all():
        threshold = float("nan")
    else:
        curve = roc(values, truth)
        threshold = float(curve.thresholds[np.argmax(curve.sensitivity + curve.specificity)])
    return threshold if np.isfinite(threshold) else float("nan")


def right_at(scores: npt.ArrayLike, positive: npt.ArrayLike, threshold: float) -> Bools:
    """Return whether the decision on each image is right, (N,); never for a score that is NaN."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    right: Bools = ((values >= threshold) == truth) & ~np.isnan(values)
    return right


def decisions(
    right: npt.ArrayLike,
    positive: npt.ArrayLike,
    groups: npt.ArrayLike | pd.Series,
    *,
    prevalence: float | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> Decisions:
    """Return how good decisions are that are `right` (N,) bool for `positive` (N,) bool.

    Intervals by a bootstrap over groups, at a threshold that stands still. prevalence: in [0, 1];
    None for the share of positive images here, which is the clinic's only where the images were
    not chosen by class. The limits of ppv and npv are NaN where sensitivity or specificity has
    none, and those at the limits of both, which is wider, where one of them is 0 or 1. Raises
    `UserError` for a prevalence outside [0, 1].
    """
    good, truth = np.asarray(right, dtype=bool), np.asarray(positive, dtype=bool)
    share = float(truth.mean()) if len(truth) else float("nan")
    share = share if prevalence is None else prevalence
    if prevalence is not None and not 0 <= prevalence <= 1:
        raise UserError(f"prevalence {prevalence}: from 0 to 1")

    def rate(members: Bools) -> Interval:
        values = np.where(members, good.astype(np.float64), np.nan)
        return bootstrap_mean(
            values, groups, replicates=replicates, seed=seed, level=level, proportion=True
        )

    def predictive(w: Floats) -> Floats:  # (R, N) -> (R, 2)
        with np.errstate(invalid="ignore"):
            found = (w @ (truth & good)) / (w @ truth)
            spared = (w @ (~truth & good)) / (w @ ~truth)
        return _predictive(found, spared, share)

    sensitivity, specificity = rate(truth), rate(~truth)
    if len(truth):
        ppv, npv = bootstrap_statistics(
            predictive, groups, replicates=replicates, seed=seed, level=level
        )
    else:
        ppv = npv = sensitivity
    if sensitivity.value in (0, 1) or specificity.value in (0, 1):  # the bootstrap sees no spread
        lows = _predictive(np.array([sensitivity.low]), np.array([specificity.low]), share)[0]
        highs = _predictive(np.array([sensitivity.high]), np.array([specificity.high]), share)[0]
        ppv, npv = (
            replace(i, low=float(low), high=float(high))
            for i, low, high in zip((ppv, npv), lows, highs, strict=True)
        )
    elif not (sensitivity.defined and specificity.defined):
        ppv, npv = (replace(i, low=float("nan"), high=float("nan")) for i in (ppv, npv))
    return Decisions(
        sensitivity=sensitivity,
        specificity=specificity,
        ppv=ppv,
        npv=npv,
        prevalence=share,
        positives=int(truth.sum()),
        negatives=int((~truth).sum()),
        missed=int((truth & ~good).sum()),
        false_alarms=int((~truth & ~good).sum()),
    )


def _predictive(sensitivity: Floats, specificity: Floats, prevalence: float) -> Floats:
    """Return PPV and NPV by Bayes' rule of rates (R,): (R, 2); both rise with either rate."""
    ill, well = prevalence, 1 - prevalence
    with np.errstate(invalid="ignore"):
        ppv = sensitivity * ill / (sensitivity * ill + (1 - specificity) * well)
        npv = specificity * well / (specificity * well + (1 - sensitivity) * ill)
    return np.column_stack([ppv, npv])


def _checked(scores: npt.ArrayLike, positive: npt.ArrayLike) -> tuple[Floats, Bools]:
    """Return both as arrays (N,); a NaN becomes the score that makes its image wrong anywhere."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(positive, dtype=bool)
    if values.ndim != 1 or values.shape != truth.shape:
        raise ValueError(f"scores {values.shape} and positive {truth.shape}: (N,) both")
    worst = np.where(truth, -np.inf, np.inf)
    return np.where(np.isnan(values), worst, values), truth
