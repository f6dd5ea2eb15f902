"""Tell whether bfloat16 pays on this device, and whether its convolutions are right.

Speed: our PGD with gradients in bfloat16 and in float32, in pairs, on a ResNet-18 and on mobile
nets, and a training step of each. Right: of some thousand small
convolutions, how many give numbers that are not finite or far from float32's, where the memory
that they are given was full of NaN before: one that reads what nothing has written then shows it.
The gradient of the weights is asked for twice: as torch computes it in bfloat16, and "in training",
which computes narrow maps in float32 (`diascope.training.kept`).
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.inputs import entry, parser
from benchmarks.record import append, circumstances
from benchmarks.timing import ratio, rounds
from diascope.attacks import PGD
from diascope.models import create_model
from diascope.training.kept import KeptInFloat32

CHANNELS = ((3, 64), (4, 4), (8, 8), (16, 32), (64, 64), (64, 128), (256, 512), (512, 512))
NETS = (
    ("resnet18", 64),
    ("resnet18", 224),
    ("tf_efficientnet_lite0", 128),
    ("mobilenetv3_small_100", 128),
)
SIDES, BATCHES = (1, 2, 3, 4, 7, 8, 14), (1, 2, 7, 10)
KERNELS = ((1, 1), (1, 2), (3, 1), (3, 2), (7, 2))  # width, stride
FAR = 0.1  # of the length of float32's answer; bfloat16's own rounding is a tenth of that
POISON = tuple(4**power for power in range(3, 10))  # numbers in a block of memory
PARTS = ("forward", "input gradient", "weight gradient", "weight gradient in training")


class Shape(NamedTuple):
    """A convolution: as many groups as channels where `depthwise`."""

    channels: tuple[int, int]
    side: int
    kernel: tuple[int, int]
    batch: int
    channels_last: bool
    depthwise: bool


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measure, append the record to the results and print it."""
    options = parser(__doc__ or "", pairs=12)
    options.add_argument("--images", type=int, default=8, help="images under attack")
    args = options.parse_args(argv)
    if args.quick:
        args.pairs, args.images = min(args.pairs, 2), 2
    device = torch.device(args.device)
    every = list(shapes())[:: 97 if args.quick else 1]
    wrong: dict[str, list[Shape]] = {part: [] for part in PARTS}
    for shape in every:
        for part in strange(shape, device, args.seed):
            wrong[part].append(shape)
    record = {
        **circumstances(device),
        "quick": args.quick,
        "gains": {
            f"{net} at {size}": {kind: asdict(found) for kind, found in gains(args, net, size)}
            for net, size in (NETS[:1] if args.quick else NETS)
        },
        "shapes": len(every),
        "wrong": {part: [shape._asdict() for shape in found] for part, found in wrong.items()},
    }
    append(args.results, Path(__file__).stem, record)
    for where, each in record["gains"].items():
        for kind, found in each.items():
            told = f"{found['median']:.2f} [{found['low']:.2f}, {found['high']:.2f}]"
            print(f"{kind}, {where}: float32 takes {told} times as long as bf16")
    for part, found in wrong.items():
        sides = sorted({(shape.side, shape.kernel) for shape in found})
        where = f", at (side, (kernel, stride)): {sides}" if sides else ""
        print(f"{part}: wrong in {len(found)} of {len(every)} convolutions{where}")
    return record


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
            with torch.autocast(device.type, torch.bfloat16, enabled=low), KeptInFloat32():
                loss = F.cross_entropy(model(x).float(), y)
            loss.backward()

        return taken

    for kind, float32, bf16 in (
        ("PGD-L2 of 7 steps", attack("float32"), attack("bf16")),
        ("training step", step(False), step(True)),
    ):
        seconds = rounds({"float32": float32, "bf16": bf16}, args.pairs, device)
        yield kind, ratio(seconds["float32"], seconds["bf16"])


def shapes() -> Iterator[Shape]:
    """Yield the convolutions that are tried."""
    for each in itertools.product(CHANNELS, SIDES, KERNELS, BATCHES, (False, True), (False, True)):
        shape = Shape(*each)
        if not shape.depthwise or shape.channels[0] == shape.channels[1]:
            yield shape


def strange(shape: Shape, device: torch.device, seed: int) -> list[str]:
    """Return the parts of a convolution that are not finite or far from float32's."""
    right, given = (answers(shape, kind, device, seed) for kind in (torch.float32, torch.bfloat16))
    found = []
    for part, a, b in zip(PARTS, right, given, strict=True):
        distance = (a - b.float()).norm()
        if not distance <= FAR * a.norm() + 1e-3:  # NaN is not
            found.append(part)
    return found


def answers(shape: Shape, kind: torch.dtype, device: torch.device, seed: int) -> list[Tensor]:
    """Return the convolution of noise and its two gradients, that of the weights also in training.

    In training weights are in float32, and `kind` is what autocast computes in.
    """
    source = torch.Generator().manual_seed(seed)
    (inside, outside), (width, stride) = shape.channels, shape.kernel
    groups = inside if shape.depthwise else 1
    x = torch.randn(shape.batch, inside, shape.side, shape.side, generator=source)
    weight = torch.randn(outside, inside // groups, width, width, generator=source)
    weight /= (weight[0].numel()) ** 0.5
    layout = torch.channels_last if shape.channels_last else torch.contiguous_format
    x, weight = (t.to(device, kind, memory_format=layout).requires_grad_() for t in (x, weight))
    poison(device)
    y = F.conv2d(x, weight, None, stride, width // 2, groups=groups)
    found = [y.detach()]
    for of in (x, weight):
        poison(device)
        found += torch.autograd.grad(y, of, torch.ones_like(y), retain_graph=True)
    weight = weight.detach().float().requires_grad_()
    low = kind == torch.bfloat16
    poison(device)
    with torch.autocast(device.type, kind, enabled=low), KeptInFloat32():
        y = F.conv2d(x.detach(), weight, None, stride, width // 2, groups=groups)
    poison(device)
    return [*found, *torch.autograd.grad(y, weight, torch.ones_like(y))]


def poison(device: torch.device) -> None:
    """Fill memory that is free with NaN, as far as the allocator gives it out again."""
    for kind in (torch.bfloat16, torch.float32):
        held = [torch.full((n,), torch.nan, dtype=kind, device=device) for n in POISON * 4]
        del held


if __name__ == "__main__":
    entry(main)
