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
from tests.training.toy import toy_pixels

from diascope.errors import UserError
from diascope.training.batches import Batches
from diascope.training.team import Team

LAUNCHERS = {
    "own": ([sys.executable, "-m", "tests.training.member"], ["devices=2"]),
    "torchrun": (
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
        + ["--standalone", "-m", "tests.training.member"],
        [],
    ),
}


def run(folder: Path, *changes: str, launcher: str = "") -> dict[str, Any]:
    """Train in a process of its own, or in two, and return what came out."""
    command, settings = LAUNCHERS.get(launcher, (LAUNCHERS["own"][0], []))
    done = subprocess.run(
        [*command, str(folder), *settings, *changes],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "OMP_NUM_THREADS": "1", "LT_CLI_USED": "0"},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = torch.load(folder / "fit.pt", weights_only=True)
    return {**found, "said": done.stdout + done.stderr}


def same(one: dict[str, Any], other: dict[str, Any]) -> None:
    for key in ("train_loss", "val_loss", "val_accuracy", "val_adversarial_accuracy"):
        np.testing.assert_allclose(one["metrics"][key], other["metrics"][key], rtol=1e-5)
    for key, value in one["weights"].items():
        torch.testing.assert_close(value, other["weights"][key], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return run(tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_processes_train_as_one_with_the_same_global_batch(
    tmp_path: Path, alone: dict[str, Any], launcher: str
) -> None:
    two = run(tmp_path, launcher=launcher)
    assert (alone["world"], two["world"]) == (1, 2)
    same(alone, two)
    assert "distributed" not in two["said"]


def test_gradients_accumulated_in_two_processes_are_those_of_the_batch(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    same(alone, run(tmp_path, "accumulate=3", launcher="own"))


def test_a_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    assert run(tmp_path, "epochs=1", launcher="own")["world"] == 2
    more = run(tmp_path, "epochs=2")
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
