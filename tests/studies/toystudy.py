"""A study of the phantom that is over in seconds, as a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from diascope.studies.layering import lay

TOY: dict[str, Any] = {
    "title": "A toy",
    "seeds": [0],
    "every_run": {
        "data": {
            "name": "phantom:images=40,size=16,hospital=both",
            "size": 16,
            "split": {"fractions": [0.5, 0.2, 0.3]},
        },
        "model": {
            "name": "resnet18",
            "options": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]},
        },
        "training": {"epochs": 2, "batch_size": 10, "device": "cpu", "augment": None},
    },
    "runs": {"first": {}, "second": {"training.optimizer.lr": 0.01}},
    "tests": {"held-out": {}},
    "evaluations": {"clean": {"measure": "predictions", "on": "held-out"}},
}


def written(folder: Path, name: str = "toy.yaml", **changes: Any) -> Path:
    """Write the toy study with changes laid over it, and return the file."""
    file = folder / name
    file.write_text(yaml.safe_dump(lay(TOY, changes), sort_keys=False))
    return file
