"""The speed of this machine, from the trainings and examinations that a store remembers."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from diascope import hardware
from diascope.errors import UserError
from diascope.studies.costs.passes import objective_passes
from diascope.studies.costs.speed import Speed
from diascope.studies.costs.stages import Stage
from diascope.studies.jobs import digest
from diascope.training.config import read_config
from diascope.training.run import CONFIG
from diascope.training.state import METRICS


def recorded(store: Path) -> dict[str, Speed]:
    """Return the speed of each kind of training (`Stage.kind`) that was done on such a machine.

    Of several trainings of a kind it is the median. A forward pass is what the training's time
    leaves for one of its units.
    """
    found: dict[str, list[tuple[Stage, float, float]]] = defaultdict(list)
    for stage, table in _trainings(store):
        judged = float(table.seconds_validation.median()) / stage.val if stage.val else 0.0
        found[stage.kind].append((stage, 1 / float(table.images_per_second.median()), judged))
    speeds = {}
    for kind, runs in found.items():
        image = statistics.median(image for _, image, _ in runs)
        of_val = [judged for stage, _, judged in runs if stage.val]
        passes = objective_passes(runs[0][0].objective, runs[0][0].classes)
        count = f"{len(runs)} training{'s' * (len(runs) > 1)}"
        speeds[kind] = Speed(
            image=image,
            forward=image / passes.units,
            source=f"{count} of the store",
            judged=statistics.median(of_val) if of_val else None,
        )
    return speeds


def examined(store: Path) -> dict[str, float]:
    """Return the seconds a pass of examinations done on such a machine, by `measure_kind`."""
    found: dict[str, list[float]] = defaultdict(list)
    for file in sorted((store / "tables").glob("*.json")):
        try:
            record: dict[str, Any] = json.loads(file.read_text())
            if not _same(record["hardware"]) or not record["passes"]:
                continue
            run = json.loads((store / "runs" / f"{record['content']['run']}.json").read_text())
            kind = measure_kind(record["content"]["measure"], run["content"]["config"])
            found[kind].append(record["seconds"] / record["passes"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return {kind: statistics.median(rates) for kind, rates in found.items()}


def measure_kind(measure: Any, config: Any) -> str:
    """Return the digest of a measure and of the model that it looks at, as plain values."""
    model = {k: v for k, v in config["model"].items() if k in ("name", "attention", "options")}
    return digest([measure, model, config["data"]["size"], config["data"]["channels"]])


def _trainings(store: Path) -> Iterator[tuple[Stage, pd.DataFrame]]:
    """Yield the trainings of the store on such a machine, and their metrics."""
    for file in sorted((store / "runs").rglob(METRICS)):
        try:
            config = read_config(file.with_name(CONFIG))
            record = config.record or {}
            table = pd.read_csv(file)
            images = {part: sum(n.values()) for part, n in record["data"]["images"].items()}
            classes = len(record["data"]["classes"])
        except (UserError, OSError, ValueError, KeyError):
            continue
        if _same(record.get("hardware")) and len(table):
            alone = config.model_copy(update={"stages": [], "search": None})
            yield Stage(alone, images["train"], images["val"], classes), table


def _same(machine: Any) -> bool:
    """Tell whether a machine computes as this one does."""
    here = hardware.describe()
    return bool(machine) and all(
        machine.get(key) == here[key] for key in ("cpu", "gpus", "threads")
    )
