from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tests.training.toy import TIMES, same_weights, toy_net, toy_pixels
from tests.training.victim import deaths

from diascope.attacks import PGD
from diascope.errors import UserError
from diascope.objectives import Adversarial
from diascope.training import Fit, Progress, TrainingConfig, fit

TRAIN, VAL = toy_pixels(32), toy_pixels(15, seed=1)
OBJECTIVE = Adversarial(attack=PGD(norm="l2", eps=0.2, steps=1))
CONFIG = TrainingConfig.model_validate(
    {
        "epochs": 3,
        "batch_size": 8,
        "optimizer": {"name": "adam", "lr": 0.02},
        "schedule": {"name": "plateau", "patience": 1, "warmup_epochs": 0.5},
        "patience": 2,
        "checkpoint_seconds": 0,
        "device": "cpu",
        "precision": "32-true",
    }
)


class Killed(BaseException):
    """Stands for the end of the process."""


def go(folder: Path | None, **changes: Any) -> Fit:
    changes = {"config": CONFIG, "resume": True} | changes
    return fit(toy_net(), OBJECTIVE, TRAIN, VAL, folder=folder, **changes)


def same(a: Fit, b: Fit) -> bool:
    pd.testing.assert_frame_equal(a.metrics.drop(columns=TIMES), b.metrics.drop(columns=TIMES))
    return same_weights(a.model, b.model) and a.epoch == b.epoch


@pytest.fixture(scope="module")
def whole() -> Fit:
    return go(None)


def test_a_run_that_ends_at_any_write_goes_on_to_the_same_weights(
    tmp_path: Path, whole: Fit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every file is put in its place by a rename: end before, and after, each one of them."""
    replace, count, at = Path.replace, 0, 0

    def counted(path: Path, target: Path) -> Path:
        nonlocal count
        count += 1
        if count == at:
            raise Killed
        moved = replace(path, target)
        if count == -at:
            raise Killed
        return moved

    monkeypatch.setattr(Path, "replace", counted)
    go(tmp_path / "counted")
    writes = count
    assert writes >= 3 * (4 + 1 + 1)  # 4 steps, the epoch's end, the metrics
    for number in range(1, writes + 1):
        for sign in (1, -1):
            folder, count, at = tmp_path / f"{sign * number}", 0, sign * number
            with pytest.raises(Killed):
                go(folder)
            assert same(go(folder), whole), f"the run that ended at write {sign * number} differs"


def test_only_the_best_weights_are_kept_beside_the_state(tmp_path: Path) -> None:
    best = []

    class Watch(Progress):
        def epoch(self, row: Any, epochs: int, is_best: bool, left: float) -> None:
            best.extend([int(row["epoch"])] * is_best)
            files = [f.name for f in tmp_path.glob("best-*")]
            assert files == [f"best-{best[-1]:04d}.pt"]

    go(tmp_path, progress=Watch())
    assert best
    assert not list(tmp_path.glob(".*"))
    assert (tmp_path / "metrics.csv").exists()


@pytest.mark.parametrize("moment", ["step", "validation"])
def test_ctrl_c_saves_the_state_and_says_how_to_go_on(
    tmp_path: Path, whole: Fit, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []

    class Presses(Progress):
        def note(self, text: str) -> None:
            notes.append(text)

        def step(self, done: int, total: int, where: str, speed: float, left: float) -> None:
            if where == "epoch 2/3" and done == (3 if moment == "step" else total):
                os.kill(os.getpid(), signal.SIGINT)

    rare = CONFIG.model_copy(update={"checkpoint_seconds": 1e9})
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, config=rare, progress=Presses())
    assert signal.getsignal(signal.SIGINT) is before
    assert torch.load(tmp_path / "state.pt")["step"] == (3 if moment == "step" else 4)
    assert len(notes) == 1
    assert "--resume" in notes[0]
    assert same(go(tmp_path), whole)


def test_a_state_of_another_configuration_is_refused(tmp_path: Path) -> None:
    class Stop(Progress):
        def step(self, done: int, *args: Any) -> None:
            if done == 2:
                raise Killed

    with pytest.raises(Killed):
        go(tmp_path, progress=Stop())
    with pytest.raises(UserError, match="holds an unfinished run"):
        go(tmp_path, resume=False)
    for change, words in {
        "seed": "training.seed = 0, cannot be resumed with 9",
        "batch_size": "training.batch_size = 8, cannot",
    }.items():
        with pytest.raises(UserError, match=words):
            go(tmp_path, config=CONFIG.model_copy(update={change: 9}))
    with pytest.raises(UserError, match="training.epochs = 3, cannot be resumed with 2"):
        go(tmp_path, config=CONFIG.model_copy(update={"epochs": 2}))
    auto = {"device": "auto", "precision": "auto", "checkpoint_seconds": 7.0}
    assert go(tmp_path, config=CONFIG.model_copy(update=auto)).epoch


def test_more_epochs_are_what_they_would_have_been(tmp_path: Path) -> None:
    longer = CONFIG.model_copy(update={"epochs": 4, "patience": None})
    go(tmp_path, config=longer.model_copy(update={"epochs": 2}))
    assert same(go(tmp_path, config=longer), go(None, config=longer))
    cosine = longer.model_validate({**longer.model_dump(), "schedule": {"name": "cosine"}})
    go(tmp_path / "cosine", config=cosine)
    with pytest.raises(UserError, match=r"epochs = 4, cannot be resumed with 5 \(its cosine"):
        go(tmp_path / "cosine", config=cosine.model_copy(update={"epochs": 5}))


def test_a_damaged_state_is_one_line(tmp_path: Path) -> None:
    go(tmp_path)
    content = (tmp_path / "state.pt").read_bytes()
    (tmp_path / "state.pt").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"state.pt: cannot be read") as caught:
        go(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore::diascope.attacks.base.NotFiniteWarning")
def test_a_loss_that_is_not_finite_leaves_the_last_good_state(tmp_path: Path) -> None:
    wild = CONFIG.model_validate(
        {**CONFIG.model_dump(), "optimizer": {"name": "sgd", "lr": 1e30}, "schedule": "constant"}
    )
    with pytest.raises(UserError, match="not finite"):
        go(tmp_path, config=wild)
    state = torch.load(tmp_path / "state.pt")
    assert torch.isfinite(state["meter"]["loss"])


@pytest.mark.slow
def test_a_process_killed_at_random_moments_gives_the_same_model(tmp_path: Path) -> None:
    """SIGKILL, on real processes of `train`, wherever they happen to be: see victim.py."""
    kills = deaths(tmp_path, 5)
    assert len(kills) == 6
    assert any(kill["step"] > 0 for kill in kills), f"no kill in the middle of an epoch: {kills}"
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert same_weights(*(load_file(run / "model.safetensors") for run in (whole, killed)))
    first, second = (pd.read_csv(run / "metrics.csv") for run in (whole, killed))
    pd.testing.assert_frame_equal(first.drop(columns=TIMES), second.drop(columns=TIMES))
    assert {f.name for f in killed.iterdir()} == {f.name for f in whole.iterdir()}
