"""Training in several processes: real ones, over gloo."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.training import member
from tests.training.toy import toy_pixels

from diascope.errors import UserError
from diascope.training.batches import Batches
from diascope.training.team import Team

PLACE = Path(__file__).parents[2]
MEMBER = "tests.training.member"
BESIDE = Path(sys.executable).parent  # where the launchers' own commands are
LAUNCHERS = {
    "own": f"{sys.executable} -m {MEMBER}",
    "torchrun": f"{BESIDE}/torchrun --standalone --nproc-per-node 2 -m {MEMBER}",
    "fabric": f"{BESIDE}/fabric run --accelerator cpu --devices 2 tests/training/member.py",
}


def run(folder: Path, launcher: str, *changes: str) -> dict[str, Any]:
    """Train in two processes and return what came out."""
    done = subprocess.run(
        [*LAUNCHERS[launcher].split(), str(folder), *changes],
        cwd=PLACE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PLACE)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return {**torch.load(folder / "fit.pt", weights_only=True), "said": done.stdout + done.stderr}


def run_alone(folder: Path, *changes: str) -> dict[str, Any]:
    """Train in this process and return what came out."""
    member.main(folder, *changes)
    found: dict[str, Any] = torch.load(folder / "fit.pt", weights_only=True)
    return found


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for key in ("train_loss", "val_loss", "val_accuracy", "val_adversarial_accuracy"):
        np.testing.assert_allclose(one["metrics"][key], other["metrics"][key], rtol=1e-5)
    for key, value in one["weights"].items():
        torch.testing.assert_close(value, other["weights"][key], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run_alone(tmp_path_factory.mktemp("alone"))


def test_two_processes_train_as_one_with_the_same_global_batch(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    two = run(tmp_path, "fabric")
    assert (alone["world"], two["world"]) == (1, 2)
    same(alone, two)


def test_gradients_in_parts_in_two_processes_are_those_of_the_batch(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    two = run(tmp_path, "own", "devices=2", "accumulate=3")
    assert two["world"] == 2
    same(alone, two)
    assert "distributed" not in two["said"]


def test_a_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    assert run(tmp_path, "torchrun", "epochs=1")["world"] == 2
    more = run_alone(tmp_path, "epochs=2")
    assert more["world"] == 1
    same(alone, more)


def test_a_batch_is_shared_whole() -> None:
    rows = np.arange(11)
    for world in (1, 2, 3):
        parts = []
        for rank in range(world):
            team = Team()
            team.rank, team.world = rank, world
            parts.append(team.share(rows))
        assert np.array_equal(np.sort(np.concatenate(parts)), rows)
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_batch_smaller_than_the_team_is_refused() -> None:
    team = Team()
    team.world = 4
    with pytest.raises(UserError, match="cannot be shared by 4 processes"):
        team.check(Batches(toy_pixels(9), 3, seed=0))
