from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau, StepLR

from diascope.training.options import OptimizerConfig, ScheduleConfig
from diascope.training.schedule import Plateau, make_optimizer, multiplier


def ours(settings: dict[str, Any], epochs: int, steps: int) -> list[float]:
    config = ScheduleConfig.model_validate(settings)
    return [
        multiplier(config, epoch, step, steps, epochs)
        for epoch in range(epochs)
        for step in range(steps)
    ]


def torchs(make: Any, count: int) -> list[float]:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule, rates = make(optimizer), []
    for _ in range(count):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_step_is_torchs_by_epoch() -> None:
    expected = torchs(lambda o: StepLR(o, 3, 0.5), 8)
    found = ours({"name": "step", "every": 3, "factor": 0.5}, 8, 4)
    assert found == pytest.approx([rate for rate in expected for _ in range(4)])


@pytest.mark.parametrize("final", [0.0, 0.1])
def test_cosine_is_torchs_by_step(final: float) -> None:
    expected = torchs(lambda o: CosineAnnealingLR(o, 20, eta_min=final), 20)
    assert ours({"name": "cosine", "final": final}, 5, 4) == pytest.approx(expected)


def test_cosine_after_a_warmup_starts_at_its_top() -> None:
    found = ours({"name": "cosine", "warmup_epochs": 1.5}, 5, 4)
    assert found[:6] == pytest.approx([(i + 1) / 6 for i in range(6)])
    assert found[6:] == pytest.approx(torchs(lambda o: CosineAnnealingLR(o, 14), 14))


@pytest.mark.parametrize("name", ["constant", "step", "plateau"])
def test_warmup_rises_linearly_and_leaves_the_rest(name: str) -> None:
    found = ours({"name": name, "warmup_epochs": 2}, 5, 4)
    assert found == pytest.approx([(i + 1) / 8 for i in range(8)] + [1.0] * 12)


def test_plateau_is_torchs_with_one_more_epoch_of_patience_there() -> None:
    losses = [1.0, 0.9, 0.95, 0.9, 0.89999, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, math.inf, 0.1, 0.2]
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    peer = ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    plateau = Plateau.of(ScheduleConfig(name="plateau", factor=0.5, patience=3))
    for loss in losses:
        peer.step(loss)
        plateau.update(loss)
        assert plateau.scale == optimizer.param_groups[0]["lr"]
    assert plateau.scale == 0.125


def test_no_plateau_without_its_schedule() -> None:
    plateau = Plateau.of(ScheduleConfig(name="cosine"))
    for _ in range(100):
        plateau.update(1.0)
    assert plateau.scale == 1.0


@pytest.mark.parametrize(
    ("settings", "kind", "expected"),
    [
        ({"name": "sgd", "momentum": 0.8, "nesterov": True}, torch.optim.SGD, {"momentum": 0.8}),
        ({"name": "adam", "eps": 0.1, "lr": 0.01}, torch.optim.Adam, {"eps": 0.1, "lr": 0.01}),
        ({"name": "adamw", "weight_decay": 0.3}, torch.optim.AdamW, {"weight_decay": 0.3}),
    ],
)
def test_optimizers_take_every_setting(settings: Any, kind: type, expected: dict) -> None:
    frozen, free = nn.Parameter(torch.zeros(2), requires_grad=False), nn.Parameter(torch.zeros(3))
    optimizer = make_optimizer(OptimizerConfig.model_validate(settings), [frozen, free])
    (group,) = optimizer.param_groups
    assert type(optimizer) is kind
    assert [p is free for p in group["params"]] == [True]
    assert {key: group[key] for key in expected} == expected
