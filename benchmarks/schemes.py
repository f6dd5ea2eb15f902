"""Train every configuration that is named, and attack what comes out: the table of a paper.

P4 on MNIST: `python -m benchmarks.schemes configs/p4/mnist-*.yaml --data mnist:PATH`. Runs that are
finished are not trained again, and those that stopped go on. Each epsilon is attacked anew, so that
accuracy may rise with it where gradients are masked; AutoAttack, which searches without gradients
too, is asked of the first `--auto-images`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.inputs import entry, parser
from benchmarks.record import append, circumstances
from diascope.attacks import FGSM, MIFGSM, PGD, Attack, AutoAttack
from diascope.attacks.independent import independent_accuracy
from diascope.data import load_pixels, open_data
from diascope.models.heads import is_correct
from diascope.training import TrainConfig, read_config, train

ATTACKS: dict[str, Attack] = {
    "fgsm": FGSM(norm="linf", eps=0.1),
    "pgd": PGD(norm="linf", eps=0.1, steps=40, rel_step_size=0.1, stop_early=True),
    "mifgsm": MIFGSM(norm="linf", eps=0.1, steps=10, stop_early=True),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Train, attack and print a line a run."""
    options = parser(__doc__ or "", models=False)
    add = options.add_argument
    add("configs", type=Path, nargs="+", metavar="CONFIG")
    add("--set", nargs="*", default=[], metavar="KEY=VALUE", dest="changes", help="over each")
    add("--out", type=Path, default=Path("runs/schemes"), metavar="DIR", help="run folders")
    add("--seeds", type=int, nargs="+", default=[0])
    add("--images", type=int, default=1000, help="test images that are attacked")
    add("--auto-images", type=int, default=100, help="of them, under AutoAttack")
    add("--epsilons", type=float, nargs="+", default=[0.1, 0.2, 0.25, 0.3])
    add("--auto-eps", type=float, default=0.2)
    args = options.parse_args(argv)
    if args.quick:
        args.images, args.auto_images, args.epsilons = 8, 0, args.epsilons[:1]
        args.changes += ["training.epochs=1", "training.epoch_share=0.002"]
        args.changes += ["training.validation.images=8", "model.options.width=0.05"]
    records = []
    for path in args.configs:
        for seed in args.seeds:
            changes = [*args.changes, f"training.seed={seed}"]
            changes += [f"data.name={args.data}"] if args.data else []
            config = read_config(path, changes)
            began = time.perf_counter()
            run = train(config, args.out / f"{path.stem}-{seed}", resume=True)
            x, y = _test_images(config, args.images)
            record = {
                "scheme": path.stem,
                "seed": seed,
                "seconds": float(run.metrics.seconds.sum()),
                "wall": time.perf_counter() - began,
                "epoch": run.epoch,
                **attacked(run.model(), x, y, args),
            }
            append(args.results, "schemes", {**circumstances(torch.device("cpu")), **record})
            records.append(record)
            print(json.dumps(record))
    print("\n".join(table(records, args.epsilons)))


def attacked(model: nn.Module, x: Tensor, y: Tensor, args: Any) -> dict[str, Any]:
    """Return the accuracy without attack, and under each at every epsilon."""
    with torch.no_grad():
        found: dict[str, Any] = {"images": len(x), "clean": _accuracy(model, x, y)}
    for name, attack in ATTACKS.items():
        generator = torch.Generator().manual_seed(args.seed)
        accuracy = independent_accuracy(
            model, x, y, attack=attack, epsilons=args.epsilons, batch_size=128, generator=generator
        )
        found[name] = [round(float(a), 4) for a in accuracy]
    few = slice(0, args.auto_images)
    if args.auto_images:
        auto = replace(AutoAttack(norm="linf"), eps=args.auto_eps)
        x_adv = auto(model, x[few], y[few], generator=torch.Generator().manual_seed(args.seed))
        found["autoattack"] = {"eps": args.auto_eps, "accuracy": _accuracy(model, x_adv, y[few])}
        found["autoattack"]["images"] = len(y[few])
    return found


def table(records: Sequence[dict[str, Any]], epsilons: Sequence[float]) -> list[str]:
    """Return the lines of a markdown table, a line a run."""
    columns = [f"{name} {eps:g}" for name in ATTACKS for eps in epsilons]
    lines = ["| scheme | seed | clean | " + " | ".join(columns) + " | AutoAttack |"]
    lines.append("|---" * (len(columns) + 4) + "|")
    for record in records:
        cells = [f"{100 * a:.1f}" for name in ATTACKS for a in record[name]]
        auto = record.get("autoattack")
        last = f"{100 * auto['accuracy']:.0f}" if auto else ""
        start = f"| {record['scheme']} | {record['seed']} | {100 * record['clean']:.1f} | "
        lines.append(start + " | ".join(cells) + f" | {last} |")
    return lines


def _test_images(config: TrainConfig, count: int) -> tuple[Tensor, Tensor]:
    data = config.data
    dataset = open_data(data.name, data.classes, **data.options)
    test = dataset.split(data.split.seed, data.split.fractions).test
    pixels = load_pixels(test.take(range(min(count, len(test)))), data.size, data.preprocess)
    return pixels.x(), pixels.y()


def _accuracy(model: nn.Module, x: Tensor, y: Tensor) -> float:
    with torch.no_grad():
        return float(
            is_correct(torch.cat([model(part) for part in x.split(128)]), y).double().mean()
        )


if __name__ == "__main__":
    entry(main)
