"""The speed of this machine, from a few steps of the very training, on images drawn at random."""

from __future__ import annotations

import json
import statistics
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diascope import hardware
from diascope.data import Dataset, Pixels
from diascope.data.arrays import ArrayReader
from diascope.evaluation import predict_logits
from diascope.files import write_text
from diascope.models import Classifier, create_model
from diascope.studies.costs.flops import model_flops, step_flops
from diascope.studies.costs.speed import Speed
from diascope.studies.costs.stages import Stage
from diascope.studies.jobs import digest
from diascope.training import Progress, fit
from diascope.training.config import TrainingConfig
from diascope.training.groups import freeze

STEPS = 3  # of a probe; the first fills the optimizer and is not counted
BUDGET = 5e10  # operations of a step on a CPU; larger batches are probed by a part
FOLDER = "probes"


def probed(stage: Stage, store: Path | None = None) -> Speed:
    """Return the speed of a stage on this machine, of its settled configuration.

    On a CPU a batch that takes more than some seconds is probed by a part of it, and the time of
    an image is taken to be the same. On a GPU the whole batch and an eighth of it are timed. With
    a `store` the result is kept there, and taken from there by the next who asks.
    """
    found = None if store is None else _read(_file(stage, store))
    if found is not None:
        return found
    speed = _measured(stage)
    if store is not None:
        text = json.dumps({**asdict(speed), "machine": hardware.describe()}, indent=1)
        write_text(_file(stage, store), text)
    return speed


def known(stage: Stage, store: Path) -> bool:
    """Tell whether the speed of such a stage was measured before."""
    return _read(_file(stage, store)) is not None


def _measured(stage: Stage) -> Speed:
    training = stage.config.training
    batch = max(1, round(stage.batch))
    source = f"{STEPS - 1} steps timed on this machine's {str(training.device).upper()}"
    if training.device == "cuda":
        few = max(2, batch // 8)
        whole, least = _step(stage, batch), _step(stage, few) if few < batch else 0.0
        return Speed(whole / batch, _forward(stage, 64), source, least)
    batch = max(1, min(batch, int(BUDGET / max(1.0, step_flops(stage)))))
    batch = max(batch, min(2, round(stage.batch)))  # batch-norm wants two
    few = max(1, min(16, int(BUDGET / model_flops(stage).forward)))
    return Speed(_step(stage, batch) / batch, _forward(stage, few), source)


def _step(stage: Stage, images: int) -> float:
    """Return the seconds of a training step of so many images."""
    watch = _Watch(torch.device(str(stage.config.training.device)))
    pixels = _noise(stage, images * STEPS)
    settings = stage.config.training.model_dump()
    settings |= {"epochs": 1, "batch_size": images, "select": "last", "patience": None}
    settings |= {"offline": None, "epoch_share": 1.0, "class_weights": "none"}
    settings |= {"schedule": {"name": "constant"}, "devices": 1, "nodes": 1}
    config = TrainingConfig.model_validate({**settings, "checkpoint_seconds": 1e9})
    fit(blank_model(stage), stage.objective, pixels, pixels.take(slice(0)), config, progress=watch)
    return statistics.median(np.diff(watch.times).tolist())


def _forward(stage: Stage, images: int) -> float:
    """Return the seconds an image of a forward pass in eval mode."""
    device = torch.device(str(stage.config.training.device))
    model, pixels = blank_model(stage).eval().to(device), _noise(stage, images)
    seconds = []
    for _ in range(STEPS):
        began = _now(device)
        predict_logits(model, pixels, images, device)
        seconds.append(_now(device) - began)
    return statistics.median(seconds[1:]) / images


def blank_model(stage: Stage) -> Classifier:
    """Return the model of a stage, its weights drawn; raises `UserError` where there is none."""
    spec = stage.config.model
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = create_model(
            spec.name,
            stage.classes,
            False,
            spec.attention,
            stage.config.data.channels,
            **spec.options,
        )
    freeze(model, spec.trainable)
    return model


def _noise(stage: Stage, count: int) -> Pixels:
    """Return images of the stage's size, drawn at random."""
    data = stage.config.data
    draw = np.random.default_rng(0)
    shape = (count, data.size, data.size, data.channels)
    images = draw.integers(0, 256, shape, dtype=np.uint8)
    classes = [str(k) for k in range(stage.classes)]
    columns = {
        "path": [f"noise/{i}" for i in range(count)],
        "label": [classes[i % len(classes)] for i in range(count)],
    }
    dataset = Dataset.of("noise", columns, classes, ArrayReader({"noise": images}))
    return Pixels(dataset, images, None, np.zeros(count, dtype=bool))


class _Watch(Progress):
    """Takes the time after every step."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.times = device, list[float]()

    def step(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        """Take the time."""
        self.times.append(_now(self.device))


def _now(device: torch.device) -> float:
    """Return the time in seconds, the device's own work done.

    With one thread it is the processor's, so that others who use the machine do not count.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif torch.get_num_threads() == 1:
        return time.process_time()
    return time.perf_counter()


def _file(stage: Stage, store: Path) -> Path:
    key = digest([stage.kind, str(stage.config.training.device), hardware.describe()])
    return store / FOLDER / f"{key}.json"


def _read(file: Path) -> Speed | None:
    try:
        content: dict[str, Any] = json.loads(file.read_text())
        content.pop("machine")
        return Speed(**content)
    except (OSError, ValueError, TypeError, KeyError):
        return None
