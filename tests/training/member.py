"""One process of a team: `python -m tests.training.member FOLDER KEY=VALUE ...`, by any launcher.

Trains a net with group normalisation on a toy problem into FOLDER; the first process writes what
came out to `FOLDER/fit.pt`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from tests.training.toy import toy_pixels
from torch import nn

from diascope.attacks import PGD
from diascope.objectives import Adversarial
from diascope.settings import override
from diascope.training import TrainingConfig, fit
from diascope.training.fit import settled
from diascope.training.machine import make_fabric

CONFIG = {
    "epochs": 2,
    "batch_size": 11,
    "optimizer": {"name": "sgd", "lr": 0.1},
    "checkpoint_seconds": 0,
    "device": "cpu",
    "precision": "32-true",
}


def grouped_net() -> nn.Module:
    """A net whose normalisation looks at one image at a time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.GroupNorm(2, 6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(96, 3),
        )


def main(folder: Path, *changes: str) -> None:
    torch.set_num_threads(1)
    objective = Adversarial(attack=PGD(norm="l2", eps=0.3, steps=2, precision="float32"), mix=0.5)
    config = TrainingConfig.model_validate(override(dict(CONFIG), changes))
    fabric = make_fabric(settled(config, objective))
    fitted = fit(
        grouped_net(),
        objective,
        toy_pixels(50),
        toy_pixels(17, seed=1),
        config,
        folder=folder,
        resume=True,
        fabric=fabric,
    )
    if fabric.global_rank == 0:
        found = {"weights": fitted.model.state_dict(), "world": fabric.world_size}
        torch.save({**found, "metrics": fitted.metrics.to_dict("list")}, folder / "fit.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
