"""What the loop does beside descending: parts of a batch, copies, alarms."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from tests.training.member import grouped_net
from tests.training.toy import TIMES, same_weights, toy_net, toy_pixels
from torch import nn

from diascope.attacks import FGSM, PGD
from diascope.objectives import Adversarial, Standard
from diascope.training import Fit, Progress, TrainingConfig, fit
from diascope.training.validation import Validation

TRAIN, VAL = toy_pixels(40), toy_pixels(30, seed=1)
FGSM_TRAINING = Adversarial(attack=FGSM(norm="linf", eps=0.1))
COPIES = {"attack": {"name": "pgd", "eps": 0.1, "steps": 2}, "every": 2, "batch_size": 16}


def trained(
    objective: Any = Standard(),  # noqa: B008
    net: nn.Module | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
    **changes: Any,
) -> Fit:
    plain = {"epochs": 3, "batch_size": 16, "device": "cpu", "precision": "32-true"}
    config = TrainingConfig.model_validate({**plain, **changes})
    net = net or toy_net()
    return fit(net, objective, TRAIN, VAL, config, folder=folder, resume=True, progress=progress)


class Heard(Progress):
    """Keeps what is said, and stops at a place."""

    def __init__(self, until: tuple[str, int] | None = None) -> None:
        self.notes, self.sizes, self.until = list[str](), list[int](), until

    def note(self, text: str) -> None:
        self.notes.append(text)

    def step(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        self.sizes.append(total)
        if (where, done) == self.until:
            raise KeyboardInterrupt


@pytest.mark.parametrize("parts", [2, 3, 5])
def test_a_gradient_in_parts_is_that_of_the_batch(parts: int) -> None:
    objective = Adversarial(attack=PGD(norm="l2", eps=0.3, steps=2), mix=0.5)
    sgd = {"optimizer": {"name": "sgd", "lr": 0.1}, "select": "last", "batch_size": 11}
    whole = trained(objective, grouped_net(), **sgd)
    split = trained(objective, grouped_net(), accumulate=parts, **sgd)
    for key in ("train_loss", "val_loss", "val_adversarial_accuracy"):
        pd.testing.assert_series_equal(whole.metrics[key], split.metrics[key], rtol=1e-5)
    for key, value in whole.model.state_dict().items():
        torch.testing.assert_close(value, split.model.state_dict()[key], rtol=1e-4, atol=1e-5)


def test_a_part_sees_only_its_images() -> None:
    net, seen = grouped_net(), list[int]()

    def look(module: nn.Module, args: Any) -> None:
        if module.training:
            seen.append(len(args[0]))

    net.register_forward_pre_hook(look)
    trained(net=net, batch_size=16, accumulate=4, epochs=1)
    assert max(seen) == 4
    assert sum(seen) == 40


def test_copies_join_the_training_set(tmp_path: Path) -> None:
    heard = Heard()
    fitted = trained(folder=tmp_path, progress=heard, offline=COPIES, select="last", epochs=2)
    assert heard.sizes[0] == 5  # 80 images in batches of 16, 40 of them copies
    assert any(note.startswith("pgd: 40 copies of 40 images") for note in heard.notes)
    assert not same_weights(fitted.model, trained(select="last", epochs=2).model)
    assert not (tmp_path / "offline").exists()
    assert pd.read_csv(tmp_path / "offline.csv").epoch.tolist() == [1]


@pytest.mark.parametrize("stop", [("epoch 1/3", 2), ("epoch 2/3", 3), ("epoch 3/3", 1)])
def test_a_run_with_copies_goes_on_to_the_same_weights(tmp_path: Path, stop: Any) -> None:
    settings = {"offline": COPIES, "select": "last", "checkpoint_seconds": 0}
    whole = trained(**settings)
    with pytest.raises(KeyboardInterrupt):
        trained(folder=tmp_path, progress=Heard(stop), **settings)
    again = trained(folder=tmp_path, **settings)
    assert same_weights(whole.model, again.model)
    pd.testing.assert_frame_equal(
        whole.metrics.drop(columns=TIMES), again.metrics.drop(columns=TIMES)
    )


def scripted(values: list[tuple[float, float]]) -> Callable[..., dict[str, float]]:
    """A validation that returns these accuracies under attack and under the check, by epoch."""
    left = iter(values)

    def judge(self: Validation, *args: Any) -> dict[str, float]:
        attacked, check = next(left)
        row = {"val_loss": 1.0, "val_accuracy": 0.9, "val_balanced_accuracy": 0.9}
        return {**row, "val_adversarial_accuracy": attacked, "val_check_accuracy": check}

    return judge


def test_catastrophic_overfitting_is_said_aloud_once(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [(0.8, 0.75), (0.9, 0.1), (0.95, 0.05)]
    monkeypatch.setattr(Validation, "__call__", scripted(seen))
    heard = Heard()
    fitted = trained(FGSM_TRAINING, progress=heard)
    said = [note for note in heard.notes if "catastrophic overfitting" in note]
    assert len(said) == 1
    assert said[0].startswith("epoch 2: ")
    assert fitted.alarms == tuple(said)
    assert fitted.metrics.alarm.tolist() == ["", "catastrophic overfitting", ""]


def test_a_healthy_training_raises_no_alarm(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = [(0.7, 0.65), (0.8, 0.7), (0.85, 0.8)]
    monkeypatch.setattr(Validation, "__call__", scripted(seen))
    assert trained(FGSM_TRAINING).alarms == ()


def test_a_single_step_is_checked_by_pgd_and_more_steps_are_not() -> None:
    one = trained(FGSM_TRAINING, epochs=1).metrics
    assert one.val_check_accuracy.notna().all()
    assert (one.val_check_accuracy <= one.val_accuracy).all()
    more = trained(Adversarial(attack=PGD(eps=0.1, steps=2)), epochs=1).metrics
    assert more.val_check_accuracy.isna().all()
