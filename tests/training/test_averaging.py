from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tests.training.toy import same_weights, toy_net, toy_pixels
from torch import nn

from diascope.objectives import Standard
from diascope.training import Progress, TrainingConfig, fit
from diascope.training.averaging import Averaging
from diascope.training.options import AveragingConfig

TRAIN, VAL = toy_pixels(32), toy_pixels(15, seed=1)


def go(folder: Path | None = None, progress: Progress | None = None, **training: Any) -> Any:
    settings = {"epochs": 3, "batch_size": 8, "device": "cpu", "precision": "32-true"} | training
    config = TrainingConfig.model_validate(settings)
    return fit(
        toy_net(), Standard(), TRAIN, VAL, config, folder=folder, resume=True, progress=progress
    )


def weights(value: float) -> nn.Module:
    net = nn.Linear(2, 2)
    nn.init.constant_(net.weight, value)
    nn.init.constant_(net.bias, -value)
    return net


def test_swa_is_the_mean_of_the_epochs_from_the_start_on() -> None:
    averaging = Averaging(AveragingConfig(name="swa", start=2))
    for epoch, value in enumerate([9.0, 1.0, 2.0, 6.0]):
        averaging.after_step(weights(-5), epoch)
        averaging.after_epoch(weights(value), epoch)
    net = weights(0)
    with averaging.applied(net):
        torch.testing.assert_close(net.weight, torch.full((2, 2), 3.0))
    assert not net.weight.any()


def test_ema_follows_its_recursion() -> None:
    averaging, mean = Averaging(AveragingConfig(name="ema", decay=0.5)), 4.0
    averaging.after_step(weights(mean), 0)
    for n, value in enumerate([1.0, 2.0, 3.0, 10.0], start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        mean = decay * mean + (1 - decay) * value
        averaging.after_step(weights(value), 0)
        averaging.after_epoch(weights(100), 0)
    net = weights(0)
    averaging.settle(net)
    torch.testing.assert_close(net.weight, torch.full((2, 2), mean))


def test_the_averaged_model_is_judged_and_kept() -> None:
    plain, ema = go(select="last"), go(select="last", averaging={"name": "ema", "decay": 0.9})
    assert plain.metrics.train_loss.equals(ema.metrics.train_loss)  # the training is the same
    assert not plain.metrics.val_loss.equals(ema.metrics.val_loss)
    assert not same_weights(plain.model, ema.model)
    late = go(select="last", averaging={"name": "swa", "start": 3})
    assert same_weights(late.model, plain.model)  # the mean of one epoch
    best = go(averaging={"name": "ema", "decay": 0.9})
    assert best.metrics.val_loss[best.epoch - 1] == ema.metrics.val_loss[best.epoch - 1]


@pytest.mark.parametrize("name", ["ema", "swa"])
def test_a_resumed_average_is_the_same(tmp_path: Path, name: str) -> None:
    class Stops(Progress):
        def step(self, done: int, total: int, where: str, speed: float, left: float) -> None:
            if where == "epoch 2/3" and done == 2:
                raise KeyboardInterrupt

    settings = {"averaging": {"name": name}, "checkpoint_seconds": 0, "select": "last"}
    whole = go(**settings)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, Stops(), **settings)
    assert same_weights(go(tmp_path, **settings).model, whole.model)


def test_settings_belong_to_their_name() -> None:
    assert AveragingConfig.model_validate("ema").decay == 0.999
    with pytest.raises(ValidationError, match="'swa' has no 'decay'"):
        AveragingConfig.model_validate({"name": "swa", "decay": 0.9})
