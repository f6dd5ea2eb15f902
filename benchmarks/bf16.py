"""Tell whether bfloat16 pays on this device, and whether its convolutions are right.

Speed: our PGD with gradients in bfloat16 and in float32, in pairs, on a ResNet-18 and on mobile
nets, and a training step of each. Right: `benchmarks.bf16_convolutions`, some minutes.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.bf16_convolutions import Shape, each_apart, shapes, strange
from benchmarks.inputs import entry, parser
from benchmarks.record import append, circumstances
from benchmarks.timing import ratio, rounds
from diascope.attacks import PGD
from diascope.models import create_model
from diascope.training.convolutions import SoundConvolutions

NETS = (
    ("resnet18", 64),
    ("resnet18", 224),
    ("tf_efficientnet_lite0", 128),
    ("mobilenetv3_small_100", 128),
)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, append the record to the results and print it."""
    options = parser(__doc__ or "", pairs=12)
    options.add_argument("--images", type=int, default=8, help="images under attack")
    options.add_argument(
        "--only", choices=("speed", "convolutions"), help="one of the two, instead of both"
    )
    args = options.parse_args(argv)
    if args.quick:
        args.pairs, args.images = min(args.pairs, 2), 2
    device = torch.device(args.device)
    every = [] if args.only == "speed" else list(shapes())[:: 97 if args.quick else 1]
    nets = () if args.only == "convolutions" else NETS[: 1 if args.quick else None]
    wrong: dict[str, list[Shape]] = defaultdict(list)
    for shape, found in _tried(every, device, args.seed):
        for what in found:
            wrong[what].append(shape)
    record = {
        **circumstances(device),
        "quick": args.quick,
        "gains": {
            f"{net} at {size}": {kind: asdict(found) for kind, found in gains(args, net, size)}
            for net, size in nets
        },
        "shapes": len(every),
        "wrong": {what: [shape._asdict() for shape in found] for what, found in wrong.items()},
    }
    append(args.results, Path(__file__).stem, record)
    for where, each in record["gains"].items():
        for kind, gain in each.items():
            told = f"{gain['median']:.2f} [{gain['low']:.2f}, {gain['high']:.2f}]"
            print(f"{kind}, {where}: float32 takes {told} times as long as bf16")
    if every:
        print(f"{len(every)} convolutions; in bf16 these are wrong, or end their process:")
    for what, where in sorted(wrong.items()):
        sides = sorted({(shape.side, shape.kernel) for shape in where})
        print(f"{what}: {len(where)}, at (side, (kernel, stride)): {sides}")
    return record


def _tried(
    every: Iterable[Shape], device: torch.device, seed: int
) -> Iterator[tuple[Shape, list[str]]]:
    """Yield each shape with what is wrong; on a GPU, slow to start, in this process."""
    if device.type == "cpu":
        yield from each_apart(every, seed)
    else:
        yield from ((shape, strange(shape, device, seed)) for shape in every)


def gains(args: argparse.Namespace, net: str, size: int) -> Iterator[tuple[str, Any]]:
    """Yield how much longer PGD, and a step of training, take in float32 than in bfloat16."""
    device = torch.device(args.device)
    torch.manual_seed(args.seed)
    model = create_model(net, num_classes=4).to(device)
    x = torch.rand(args.images, 3, size, size, device=device)
    y = torch.randint(4, (args.images,), device=device)

    def attack(precision: Any) -> Any:
        made = PGD(norm="l2", eps=4.0, steps=7, rel_step_size=0.2, precision=precision)
        return lambda number: made(model.eval(), x, y)

    def step(low: bool) -> Any:
        def taken(number: int) -> None:
            model.train().zero_grad()
            with torch.autocast(device.type, torch.bfloat16, enabled=low), SoundConvolutions():
                loss = F.cross_entropy(model(x).float(), y)
            loss.backward()

        return taken

    for kind, float32, bf16 in (
        ("PGD-L2 of 7 steps", attack("float32"), attack("bf16")),
        ("training step", step(False), step(True)),
    ):
        seconds = rounds({"float32": float32, "bf16": bf16}, args.pairs, device)
        yield kind, ratio(seconds["float32"], seconds["bf16"])


if __name__ == "__main__":
    entry(main)
