"""Time whole trainings and tell where their time goes: rows t-e and t-g.

Trains each configuration into a temporary folder, as `diascope train` does, and sums its
metrics.csv over the epochs: the seconds spent waiting for data (reading, scaling, augmentation),
in the attack, in the rest of the step and in validation. Images are decoded beforehand, as a first
training of a data set leaves them.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from benchmarks.inputs import entry, parser
from benchmarks.record import append, circumstances, run_lines, setting_lines
from benchmarks.timing import wait
from benchmarks.training_inputs import note
from diascope.training import Progress, TrainConfig, read_config, train
from diascope.training.run import open_parts
from diascope.training.state import METRICS

CONFIGS = Path(__file__).parents[1] / "configs"
DEFAULT = [CONFIGS / f"ham10000-128-{name}.yaml" for name in ("standard", "pgd-l2")]
QUICK = [
    "data={name: 'phantom:images=60,size=16', size: 16}",
    "model.options.layers=[1, 1, 1, 1]",
    "model.options.channels=[8, 8, 8, 8]",
    "training.epochs=1",
    "training.batch_size=8",
    "training.validation.images=4",
]


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Train each configuration, append the records and print them."""
    options = parser(__doc__ or "", models=False)
    add = options.add_argument
    add("--config", type=Path, nargs="+", help="YAML files (default: configs/ham10000-128-*.yaml)")
    add("--set", nargs="+", default=[], metavar="KEY=VALUE", help="such as training.epochs=1")
    args = options.parse_args(argv)
    records = []
    for path in args.config or DEFAULT:
        overrides = [*args.set, f"training.device={args.device}", f"training.seed={args.seed}"]
        if args.data is not None:
            overrides.append(f"data.name={args.data}")
        if args.quick:
            overrides += QUICK
        records.append(measure(path, read_config(path, overrides), args.device, args.quick))
        append(args.results, Path(__file__).stem, records[-1])
    print("\n".join([*setting_lines(records[-1]), *run_lines(records)]))
    return records


def measure(path: Path, config: TrainConfig, device_name: str, quick: bool) -> dict[str, Any]:
    """Return the record of one training."""
    device = torch.device(device_name)
    open_parts(config, Progress())
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        train(config, Path(folder) / "run", progress=Progress())
        wait(device)
        seconds = time.perf_counter() - began
        record = {
            "row": "t-e",
            "title": path.stem,
            **circumstances(device),
            "notes": [note(config.data.name)],
            "quick": quick,
            "config": config.to_dict(),
            "seconds_run": seconds,
            **where_time_went(Path(folder)),
        }
    if device.type == "cuda":
        record["peak_bytes"] = {"diascope": torch.cuda.max_memory_allocated(device)}
    return record


def where_time_went(folder: Path) -> dict[str, Any]:
    """Return seconds summed over the epochs of every stage, and the share spent on data."""
    files = sorted(folder.rglob(METRICS), key=lambda file: file.stat().st_mtime)
    table = pd.concat([pd.read_csv(file) for file in files])
    total = {str(key): float(table[key].sum()) for key in table if key.startswith("seconds")}
    last = table.iloc[-1]
    return {
        "epochs": len(table),
        "parts": total,
        "data_share": total["seconds_data"] / total["seconds"],
        "training_images_per_second": float(table["images_per_second"].median()),
        "val_accuracy": float(last["val_accuracy"]),
        "val_adversarial_accuracy": float(last["val_adversarial_accuracy"]),
    }


if __name__ == "__main__":
    entry(main)
