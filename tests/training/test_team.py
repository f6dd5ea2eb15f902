"""Training in several processes: real ones, over gloo."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.forked import FORK
from tests.training import member
from tests.training.toy import toy_pixels

from diascope.errors import UserError
from diascope.training.batches import Batches
from diascope.training.team import Team

PLACE = Path(__file__).parents[2]


def forked(target: Callable[..., None], count: int, *given: Any) -> None:
    """Call a function in so many forks of this process, which have all modules; each ends well."""
    processes = [FORK.Process(target=target, args=(rank, *given)) for rank in range(count)]
    with warnings.catch_warnings():  # of Python 3.12 on: this process has threads
        warnings.simplefilter("ignore", DeprecationWarning)
        for process in processes:
            process.start()
    for process in processes:
        process.join(280)
    ended = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    assert ended == [0] * count


def what_came_out(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "fit.pt", weights_only=True)
    return found


def _by_fabric(rank: int, folder: Path) -> None:
    os.chdir(PLACE)
    os.environ.update(OMP_NUM_THREADS="1", PYTHONPATH=str(PLACE))
    words = ["fabric", "run", "--accelerator", "cpu", "--devices", "2"]
    sys.argv = [*words, "tests/training/member.py", str(folder)]
    from lightning.fabric.cli import _main

    _main()


def _by_torchrun(rank: int, port: int, folder: Path, *changes: str) -> None:
    """Be told what torchrun tells."""
    told = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "GROUP_RANK": 0, "TORCHELASTIC_RUN_ID": "none"}
    told |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": rank, "LOCAL_RANK": rank}
    os.environ.update({name: str(value) for name, value in told.items()})
    member.main(folder, *changes)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port


def run_alone(folder: Path, *changes: str) -> dict[str, Any]:
    """Train in this process and return what came out."""
    member.main(folder, *changes)
    return what_came_out(folder)


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
    forked(_by_fabric, 1, tmp_path)  # which starts torchrun, and that two processes
    two = what_came_out(tmp_path)
    assert (alone["world"], two["world"]) == (1, 2)
    same(alone, two)


def test_gradients_in_parts_in_two_processes_are_those_of_the_batch(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    words = [sys.executable, "-m", "tests.training.member", tmp_path, "devices=2", "accumulate=3"]
    done = subprocess.run(
        words,
        cwd=PLACE,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(PLACE)},
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    two = what_came_out(tmp_path)
    assert two["world"] == 2
    same(alone, two)
    assert "distributed" not in done.stdout + done.stderr


def test_a_run_goes_on_with_another_number_of_processes(
    tmp_path: Path, alone: dict[str, Any]
) -> None:
    forked(_by_torchrun, 2, free_port(), tmp_path, "epochs=1")
    assert what_came_out(tmp_path)["world"] == 2
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
