"""Trains once to the end, and once in processes that are killed.

Every training is a process of its own, forked from one that has imported everything. The first is
killed somewhere at its start, each of the others some steps further.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import lightning.fabric  # noqa: F401
import torch
from tests.forked import FORK

from diascope.training import Progress, read_config, train

CONFIG: dict[str, Any] = {
    "data": {"name": "phantom:images=80,size=32", "size": 32},
    "model": {
        "name": "resnet18",
        "options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8], "drop_rate": 0.2},
    },
    "objective": {"name": "adversarial", "attack": {"name": "pgd", "steps": 1, "eps": 0.02}},
    "training": {
        "epochs": 4,
        "batch_size": 8,
        "checkpoint_seconds": 0,
        "schedule": {"name": "cosine", "warmup_epochs": 1},
        "device": "cpu",
    },
}
STAGED = {
    **CONFIG,
    "training": {**CONFIG["training"], "epochs": 3},
    "stages": [{"model.trainable": 1, "training.epochs": 1, "objective": "standard"}, {}],
}


def start(folder: Path, config: dict[str, Any]) -> int:
    """Fork a process that trains, and return its id."""
    child = os.fork()
    if child:
        return child
    try:
        train(read_config(config), folder, resume=True, progress=Progress())
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    os._exit(0)


def deaths(root: Path, kills: int, staged: bool = False) -> list[dict[str, int]]:
    """Write the run folders `whole` and `killed` under `root`; return where each kill left it.

    `staged`: the run has two stages, and is killed in the second alone.
    """
    process = FORK.Process(target=_main, args=(root, kills, staged))
    with warnings.catch_warnings():  # of Python 3.12 on: this process has threads
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    process.join()
    assert process.exitcode == 0
    found: list[dict[str, int]] = json.loads((root / "deaths.json").read_text())
    return found


def _main(root: Path, kills: int, staged: bool) -> None:
    config = STAGED if staged else CONFIG
    os.environ["DIASCOPE_CACHE"] = str(root / "cache")
    began = time.monotonic()
    assert ended(start(root / "whole", config)) == 0
    seconds = time.monotonic() - began
    state, draw, deaths = root / "killed" / "state.pt", random.Random(time.time_ns()), []
    for number in range(kills + 1):
        child = start(root / "killed", config)
        if number or staged:
            await_changes(state, draw.randint(1, 3))
            time.sleep(draw.uniform(0, 0.1))
        else:
            time.sleep(draw.uniform(0, 0.3) * seconds)
        os.kill(child, signal.SIGKILL)
        assert ended(child) == -signal.SIGKILL
        deaths.append(where(state))
    assert ended(start(root / "killed", config)) == 0
    (root / "deaths.json").write_text(json.dumps(deaths))


def ended(child: int) -> int:
    """Wait for a process and return its exit code, the negative signal if it was killed."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def await_changes(file: Path, count: int) -> None:
    """Return when the file has been replaced `count` times."""
    before = -1
    for _ in range(count + 1):
        while (now := file.stat().st_mtime_ns if file.exists() else 0) == before:
            time.sleep(0.001)
        before = now


def where(state: Path) -> dict[str, int]:
    """Return the epoch and the step at which the state stands, -1 where there is none."""
    if not state.exists():
        return {"epoch": -1, "step": -1}
    found = torch.load(state, weights_only=True)
    return {key: found[key] for key in ("epoch", "step")}
