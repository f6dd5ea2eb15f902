"""Two ways in which adversarial training fails without a sound, told from the metrics.

Robust overfitting (Rice, Wong and Kolter 2020): the training loss still falls while accuracy under
attack on other images falls too. Catastrophic overfitting (Wong, Rice and Kolter 2020;
Andriushchenko and Flammarion 2020): trained on the examples of a single step, the model learns to
spoil that step; accuracy under it stays or rises while accuracy under PGD falls to nothing. The
papers describe the two by pictures; the thresholds by which they are told here are ours.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from diascope.attacks import FGSM, MIFGSM, PGD, Attack

ROBUST_EPOCHS, ROBUST_Z = 3, 2.5
CATASTROPHIC_PART, CATASTROPHIC_Z = 0.5, 3.5
CHECK_IMAGES, CHECK_STEPS = 128, 10

Row = Mapping[str, float]


@dataclass(frozen=True)
class Alarm:
    """What was seen at the last row: `kind`, the `epoch` (from 1), and one line that says it.

    `high` and `low` are the two accuracies that are too far apart; their difference exceeds
    `margin`, what chance allows.
    """

    kind: str
    epoch: int
    high: float
    low: float
    margin: float
    text: str

    def __str__(self) -> str:
        return self.text


def robust_overfitting(
    rows: Sequence[Row],
    images: int,
    *,
    epochs: int = ROBUST_EPOCHS,
    z: float = ROBUST_Z,
) -> Alarm | None:
    """Return an alarm where the last row stands in robust overfitting, else None.

    rows: the metrics, a row an epoch, of which `epoch`, `train_loss` and
    `val_adversarial_accuracy` are read. images: how many images are behind the last. All are
    averaged over `epochs` epochs in a row. The alarm holds where the accuracy under attack of the
    last ones is below the best before by more than `z` standard errors of a difference of two
    shares of `images`, and their training loss is lower than then. Averaging keeps the best of
    many epochs from being best by chance: a model that neither gains nor loses raises the alarm in
    up to 3% of runs of 100 epochs if each epoch were judged on other images, and more seldom as it
    is, on the same ones. To be seen, accuracy must fall by 16 points with 120 images, by 5.5 with
    1,000.
    """
    accuracy = _averages([row["val_adversarial_accuracy"] for row in rows], epochs)
    loss = _averages([row["train_loss"] for row in rows], epochs)
    before = [k for k in range(len(accuracy) - epochs) if not math.isnan(accuracy[k])]
    if not before or math.isnan(accuracy[-1]):
        return None
    place = max(before, key=lambda k: accuracy[k])
    best, now = accuracy[place], accuracy[-1]
    margin = z * _error_of_difference(best, images, now, images)
    if best - now <= margin or loss[-1] >= loss[place]:
        return None
    last, first = int(rows[-1]["epoch"]), int(rows[place]["epoch"])
    text = (
        f"robust overfitting: accuracy under attack has fallen from {best:.3f} in epochs {first} "
        f"to {first + epochs - 1} to {now:.3f} in the last {epochs} (chance allows {margin:.3f}), "
        "while the training loss fell; take the best epoch, stop sooner, or regularise: weight "
        "averaging, augmentation, weight decay"
    )
    return Alarm("robust overfitting", last, best, now, margin, text)


def catastrophic_overfitting(
    rows: Sequence[Row],
    images: int,
    check_images: int = CHECK_IMAGES,
    *,
    chance: float = 0.0,
    part: float = CATASTROPHIC_PART,
    z: float = CATASTROPHIC_Z,
) -> Alarm | None:
    """Return an alarm where the last row stands in catastrophic overfitting, else None.

    rows: the metrics, of which `epoch`, `val_adversarial_accuracy` (under the attack that is
    trained with, a single step, on `images` images) and `val_check_accuracy` (under
    `check_attack`, on `check_images` of them) are read. chance: the accuracy of one constant
    answer. The alarm holds where the second is below `part` times the first, and lower than it by
    more than `z` standard errors, as chance is too (a model that has learned nothing yet may
    answer the single step by any one class), and does not still rise, by a standard error over all
    epochs before (a model that is learning withstands the single step first). Without collapse PGD
    takes some points more than the single step, not half of what withstood it.
    """
    if not rows:
        return None
    row = rows[-1]
    high, low = row["val_adversarial_accuracy"], row.get("val_check_accuracy", math.nan)
    if math.isnan(high) or math.isnan(low):
        return None
    margin = z * _error_of_difference(high, images, low, check_images)
    by_chance = z * _error_of_difference(high, images, chance, images)
    if low >= part * high or high - low <= margin or high - chance <= by_chance:
        return None
    if _rises(rows, check_images):
        return None
    epoch = int(row["epoch"])
    text = (
        f"catastrophic overfitting: accuracy is {high:.3f} under the single step that is trained "
        f"with, and {low:.3f} under PGD (chance allows {margin:.3f} between them): the model "
        "spoils the step and is not robust; train with PGD, a random start or a smaller eps"
        + _collapsed(rows)
    )
    return Alarm("catastrophic overfitting", epoch, high, low, margin, text)


def check_attack(attack: Attack | None) -> Attack | None:
    """Return the PGD beside which an attack of a single step is to be judged, else None.

    It has the norm and eps of `attack`, 10 steps of eps/4 and a random start. None for an attack
    of more steps, which needs no other beside it, for one without an eps, and for none.
    """
    single = isinstance(attack, FGSM) or (isinstance(attack, PGD | MIFGSM) and attack.steps == 1)
    if attack is None or attack.eps is None or not single:
        return None
    return PGD(
        norm=attack.norm,
        eps=attack.eps,
        steps=CHECK_STEPS,
        targeted=bool(getattr(attack, "targeted", False)),
    )


def _rises(rows: Sequence[Row], images: int) -> bool:
    """Tell whether accuracy under PGD is above that of all rows before by a standard error."""
    *before, last = (row.get("val_check_accuracy", math.nan) for row in rows)
    best = max((value for value in before if not math.isnan(value)), default=math.nan)
    return last - best > _error_of_difference(last, images, best, images)


def _collapsed(rows: Sequence[Row]) -> str:
    """Return in which epoch accuracy under PGD fell most, if it did."""
    known = [row for row in rows if not math.isnan(row.get("val_check_accuracy", math.nan))]
    falls = [
        (before["val_check_accuracy"] - after["val_check_accuracy"], int(after["epoch"]))
        for before, after in pairwise(known)
    ]
    fall, epoch = max(falls, default=(0.0, 0))
    return f" (it fell in epoch {epoch}, by {fall:.3f})" if fall > 0 else ""


def _averages(values: Sequence[float], count: int) -> list[float]:
    """Return the mean of each `count` values in a row."""
    if count < 1:
        raise ValueError(f"epochs={count}: at least 1 is needed")
    return [sum(values[k : k + count]) / count for k in range(len(values) - count + 1)]


def _error_of_difference(first: float, n: int, second: float, m: int) -> float:
    """Return the standard error of the difference of two shares, of n and of m images.

    Each share counts as if there were one more success and one more failure, so that none or all
    of few images is not taken to be certain.
    """
    if min(n, m) < 1:
        raise ValueError(f"{n} and {m} images: at least 1 is needed")
    variance = 0.0
    for share, count in ((first, n), (second, m)):
        p = (share * count + 1) / (count + 2)
        variance += p * (1 - p) / count
    return math.sqrt(variance)
