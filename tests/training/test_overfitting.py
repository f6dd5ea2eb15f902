"""Alarms on rows made by hand, and on a training that really collapses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from diascope.attacks import APGD, FGSM, MIFGSM, PGD, Attack, BoundaryAttack
from diascope.attacks.base import verdict
from diascope.data import Pixels, Preprocess, load_pixels, open_data
from diascope.objectives import Adversarial, Standard
from diascope.randomness import derive
from diascope.training.overfitting import (
    catastrophic_overfitting,
    check_attack,
    robust_overfitting,
)

RISE_AND_FALL = (0.20, 0.30, 0.40, 0.45, 0.46, 0.45, 0.40, 0.36, 0.33, 0.30, 0.28)


def rows(accuracy, loss=None) -> list[dict[str, float]]:
    loss = loss or [2.0 / (k + 1) for k in range(len(accuracy))]
    return [
        {"epoch": k + 1, "train_loss": fell, "val_adversarial_accuracy": a}
        for k, (a, fell) in enumerate(zip(accuracy, loss, strict=True))
    ]


def pair(high: float, low: float, epoch: int = 1) -> dict[str, float]:
    return {"epoch": epoch, "val_adversarial_accuracy": high, "val_check_accuracy": low}


def test_robust_overfitting_is_told_where_the_fall_passes_its_noise() -> None:
    found = [robust_overfitting(rows(RISE_AND_FALL[:n]), 1000) for n in range(12)]
    first = next(n for n, alarm in enumerate(found) if alarm)
    assert first == 9  # epochs 6 to 8 are 0.034 below 3 to 5; 7 to 9 are 0.090 below 4 to 6
    alarm = found[11]
    assert alarm is not None
    assert (alarm.epoch, alarm.kind) == (11, "robust overfitting")
    assert alarm.high == pytest.approx((0.45 + 0.46 + 0.45) / 3)
    assert alarm.low == pytest.approx((0.33 + 0.30 + 0.28) / 3)
    p, q = ((1000 * a + 1) / 1002 for a in (alarm.high, alarm.low))
    assert alarm.margin == pytest.approx(2.5 * math.sqrt((p * (1 - p) + q * (1 - q)) / 1000))
    assert "from 0.453 in epochs 4 to 6 to 0.303 in the last 3" in str(alarm)
    assert "\n" not in alarm.text


def test_robust_overfitting_is_silent_otherwise() -> None:
    few = robust_overfitting(rows(RISE_AND_FALL), 60)  # the same fall on 60 images may be chance
    assert few is None
    rising = [0.5 + 0.1 * k for k in range(len(RISE_AND_FALL))]
    assert robust_overfitting(rows(RISE_AND_FALL, rising), 1000) is None  # it diverges
    assert robust_overfitting(rows(sorted(RISE_AND_FALL)), 1000) is None
    once = [0.4] * 8 + [0.1]
    assert robust_overfitting(rows(once), 150) is None
    assert robust_overfitting(rows([*once, 0.1, 0.1]), 150) is not None
    assert robust_overfitting(rows([math.nan] * 12), 1000) is None
    assert robust_overfitting([], 1000) is None
    with pytest.raises(ValueError, match="at least 1"):
        robust_overfitting(rows(RISE_AND_FALL), 0)


def test_chance_alone_seldom_raises_it() -> None:
    draw, fired = np.random.default_rng(0), 0
    for _ in range(100):
        level = rows(draw.binomial(200, 0.4, 60) / 200)
        fired += any(robust_overfitting(level[:n], 200) for n in range(6, 61))
    assert fired <= 4


def test_catastrophic_overfitting_is_told_by_two_attacks_that_part() -> None:
    alarm = catastrophic_overfitting([pair(0.5, 0.4, 1), pair(0.6, 0.02, 2)], 128, 128)
    assert alarm is not None
    assert (alarm.epoch, alarm.high, alarm.low) == (2, 0.6, 0.02)
    assert "0.600 under the single step" in alarm.text
    assert "it fell in epoch 2, by 0.380" in alarm.text
    at_once = catastrophic_overfitting([pair(0.6, 0.0)], 128, 128)
    assert at_once is not None
    assert "it fell" not in at_once.text


@pytest.mark.parametrize(
    ("high", "low", "images", "chance"),
    [
        (0.50, 0.30, 1000, 0.1),  # PGD takes 20 points more: no collapse
        (0.20, 0.06, 64, 0.1),  # by chance
        (0.105, 0.005, 200, 0.1),  # has learned nothing yet
        (0.02, 0.60, 128, 0.1),  # the other way round: masked, not collapsed
        (math.nan, 0.1, 128, 0.1),
        (0.6, math.nan, 128, 0.1),
    ],
)
def test_catastrophic_overfitting_is_silent_otherwise(high, low, images, chance) -> None:
    assert catastrophic_overfitting([pair(high, low)], images, images, chance=chance) is None


def test_what_is_still_learning_has_not_collapsed() -> None:
    """Of AlexNet on FGSM images of MNIST, eps 0.2: epoch by epoch both accuracies rise."""
    single = (0.095, 0.295, 0.405, 0.540, 0.630, 0.675, 0.680, 0.690)
    check = (0.0, 0.0234375, 0.15625, 0.234375, 0.3046875, 0.3515625, 0.3984375, 0.421875)
    seen = [pair(high, low, n + 1) for n, (high, low) in enumerate(zip(single, check, strict=True))]
    told = [catastrophic_overfitting(seen[: n + 1], 200, 128, chance=0.1) for n in range(8)]
    assert not any(told)
    stuck = [*seen[:3], pair(0.540, 0.15625, 4)]
    alarm = catastrophic_overfitting(stuck, 200, 128, chance=0.1)
    assert alarm is not None
    assert alarm.epoch == 4
    gone = catastrophic_overfitting([*seen, pair(0.8, 0.02, 9)], 200, 128, chance=0.1)
    assert gone is not None
    assert "it fell in epoch 9" in gone.text
    without = [{"epoch": 1, "val_adversarial_accuracy": 0.5}, pair(0.6, 0.0, 2)]
    assert catastrophic_overfitting(without, 128) is not None


def test_without_a_check_nothing_is_said() -> None:
    assert catastrophic_overfitting([], 128) is None
    assert catastrophic_overfitting(rows([0.5, 0.9]), 128) is None


@pytest.mark.parametrize(
    "attack",
    [
        FGSM(norm="linf", eps=0.1),
        FGSM(norm="l2", eps=1.0),
        PGD(norm="linf", eps=0.1, steps=1, rel_step_size=1.25),
        MIFGSM(norm="linf", eps=0.1, steps=1),
    ],
)
def test_a_single_step_is_checked_by_pgd(attack: Attack) -> None:
    check = check_attack(attack)
    assert check == PGD(norm=attack.norm, eps=attack.eps, steps=10, random_start=True)


@pytest.mark.parametrize(
    "attack", [PGD(steps=2), MIFGSM(steps=5), APGD(), BoundaryAttack(eps=1.0), None]
)
def test_more_steps_need_no_check(attack: Attack | None) -> None:
    assert check_attack(attack) is None


def digits(root: Path, per_class: int) -> tuple[Pixels, Pixels]:
    splits = open_data(f"mnist:{root / 'mnist'}").split(fractions=(0.9, 0.1, 0.0))
    parts = (splits.train.balanced(per_class), splits.val.balanced(20))
    train, val = (load_pixels(part, 28, Preprocess(channels=1)) for part in parts)
    return train, val


def accuracy(model: nn.Module, attack: Attack, pixels: Pixels) -> float:
    x, y = pixels.x(), pixels.y()
    generator = torch.Generator().manual_seed(1)
    x_adv = attack(model, x, y, generator=generator, ids=pixels.ids())
    return 1 - float(verdict(model, x_adv, y).float().mean())


def history(train: Pixels, val: Pixels, attack: Attack, clean: int, epochs: int) -> list[dict]:
    """Train a small net, the first epochs without an attack; return its metrics."""
    single = FGSM(norm="linf", eps=float(attack.eps), precision="float32")
    check = check_attack(single)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU()]
        layers += [nn.Flatten(), nn.Linear(1568, 100), nn.ReLU(), nn.Linear(100, 10)]
        model = nn.Sequential(*layers)
    optimizer, found = torch.optim.Adam(model.parameters(), 1e-3), []
    for epoch in range(epochs):
        objective = Standard() if epoch < clean else Adversarial(attack=attack)
        order = torch.randperm(len(train), generator=torch.Generator().manual_seed(epoch))
        for batch in order.split(64):
            generator = torch.Generator().manual_seed(derive(0, epoch))
            x, y, ids = train.x(batch), train.y(batch), train.ids(batch)
            loss = objective(model, x, y, generator=generator, ids=ids)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        found.append(pair(accuracy(model, single, val), accuracy(model, check, val), epoch + 1))
    return found


@pytest.mark.slow
def test_fgsm_training_at_a_large_eps_collapses_and_pgd_training_does_not(
    shared_data: Path,
) -> None:
    """At eps 0.3 without a random start (Tramer et al. 2018: it learns to mask the step)."""
    train, val = digits(shared_data, per_class=100)
    collapsed = history(train, val, FGSM(norm="linf", eps=0.3, precision="float32"), 3, 12)
    alarms = [catastrophic_overfitting(collapsed[: n + 1], 200, 200, chance=0.1) for n in range(12)]
    assert alarms[-1] is not None
    assert collapsed[-1]["val_adversarial_accuracy"] > 5 * collapsed[-1]["val_check_accuracy"]
    assert not any(alarms[:3])  # before the first attacked epoch
    pgd = PGD(norm="linf", eps=0.2, steps=5, precision="float32")
    robust = history(train, val, pgd, 3, 6)
    assert robust[-1]["val_check_accuracy"] > 0.25
    assert not any(
        catastrophic_overfitting(robust[: n + 1], 200, 200, chance=0.1) for n in range(6)
    )
