"""`diascope demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA = "phantom:images=2400,size=64,seed=0,hospital=both,difficulty=0.2"


def demo(
    out: Annotated[Path, typer.Option(help="The folder for runs and report.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="The training seed.")] = 0,
) -> None:
    """Train a standard and a robust classifier on the phantom, attack both, and report."""
    import time

    from diascope.audit import AuditSettings
    from diascope.cli import audit
    from diascope.cli.console import say
    from diascope.hardware import keep_memory
    from diascope.settings import validate
    from diascope.training import TrainConfig
    from diascope.training import train as run_training

    keep_memory()
    began = time.perf_counter()
    runs = {name: out / name for name in ("standard", "adversarial")}
    for name, folder in runs.items():
        say(f"training the {name} classifier on {DATA}")
        settings = validate(TrainConfig, _config(name, seed), "demo")
        run_training(settings, folder, resume=True)
    audit.run(
        list(runs.values()),
        DATA,
        AuditSettings(
            epsilons=(0.0, 0.1, 0.25, 0.5, 1.0),
            attack={"name": "pgd", "steps": 10},
            images=400,
            budget="quick",
            effort={  # more than usual, for these images are small
                "curve_images": None,
                "masking_images": 12,
                "corruption_images": 32,
                "operating_images": 32,
                "calibration_images": 32,
                "map_images": None,
                "cases": 12,
            },
            positive=("melanoma",),
            seed=seed,
        ),
        out,
        title="A standard and an adversarially trained classifier on the phantom",
        command=f"diascope demo --seed {seed}",
    )
    say(f"done in {time.perf_counter() - began:.0f} s; open {out / 'report.html'}")


def _config(name: str, seed: int) -> dict[str, object]:
    attack = {"name": "pgd", "norm": "l2", "eps": 0.25, "steps": 2}
    objectives: dict[str, dict[str, object]] = {
        "standard": {"name": "standard"},
        "adversarial": {"name": "adversarial", "attack": attack},
    }
    return {
        "data": {"name": DATA, "size": 64, "split": {"seed": 0, "fractions": [0.6, 0.15, 0.25]}},
        "model": {
            "name": "resnet18",
            "options": {
                "layers": [1, 1, 1, 1],
                "channels": [32, 64, 128, 256],
                "zero_init_last": False,  # see docs/results/ham10000-128.md
            },
        },
        "objective": objectives[name],
        "training": {
            "epochs": 10,
            "batch_size": 64,
            "seed": seed,
            "optimizer": {"name": "adamw", "lr": 3e-3, "weight_decay": 5e-4},
            "schedule": {"name": "cosine", "warmup_epochs": 2},
            "augment": {"flips": True, "colour": 0, "affine": 0, "rotation": 0},
        },
    }
