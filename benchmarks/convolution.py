"""Measure the share of the machine's convolution rate that our PGD reaches: row c.

The rate is that of the fastest of a few dense 3x3 convolutions, forward and gradient to the
input, channels last, in the precision in which the attack computes its gradients (bfloat16 where
the hardware gains from it, else float32), by turns with the attack. The attack's work is counted
from ResNet-18's convolutions and linear layers: two operations a multiply-add, as many again for
the gradient to the input. What else it does (normalisation, steps, projections) counts as nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.inputs import Bench, entry, open_bench, parser
from benchmarks.record import append, circumstances, setting_lines, speed_lines
from benchmarks.timing import compared, ratio, rounds, timed
from diascope.attacks import PGD
from diascope.hardware import gains_from_bf16
from diascope.models.modes import evaluating

SIZE, IMAGES, STEPS, EPS = 224, 16, 7, 4.0
SHAPES = ((64, 56), (128, 28), (256, 28), (256, 14), (512, 14), (512, 28))  # channels, side


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Measure the row, append it to the results and print it."""
    options = parser(__doc__ or "", pairs=12)
    options.add_argument("--images", type=int, default=IMAGES, help="images under attack")
    args = options.parse_args(argv)
    size = SIZE
    if args.quick:
        args.pairs, args.images, size = min(args.pairs, 2), 2, 48
    record = measure(open_bench(args, ["standard"], args.images, size), args)
    append(args.results, Path(__file__).stem, record)
    print("\n".join([*setting_lines(record), *speed_lines([record])]))
    return [record]


def measure(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """Return the record of row c."""
    device, net, x = torch.device(args.device), bench.nets["standard"], bench.x
    y, model = bench.labels(net), peers.own_copy(net.model)
    low = gains_from_bf16(device)
    batch = 2 if args.quick else (256 if device.type == "cuda" else 16)
    shapes = SHAPES[:2] if args.quick else SHAPES
    dtype = torch.bfloat16 if low else torch.float32
    shape, convolution, work = _fastest(shapes, batch, dtype, device, 0.05 if args.quick else 1.0)
    attack = PGD(norm="l2", eps=EPS, steps=STEPS, rel_step_size=0.2)
    contenders = {"diascope": lambda number: attack(model, x, y), "convolution": convolution}
    seconds = rounds(contenders, args.pairs, device)
    ours = 2 * forward_operations(model, x[:1]) * STEPS * len(x)
    rates = {
        "diascope": [ours / s for s in seconds["diascope"]],
        "convolution": [work / s for s in seconds["convolution"]],
    }
    return {
        "row": "c",
        "title": f"PGD-L2, {len(x)} images of {x.shape[-1]}: share",
        **circumstances(device),
        "notes": [
            *bench.notes,
            f"{'bf16' if low else 'float32'} convolution, 3x3, {shape[0]} channels at {shape[1]}: "
            f"{max(rates['convolution']) / 1e12:.3g} TFLOP/s at best",
        ],
        "quick": args.quick,
        "precision": "bf16" if low else "float32",
        "settings": {"images": len(x), "size": x.shape[-1], "steps": STEPS, "convolution": shape},
        **compared({"diascope": seconds["diascope"]}, len(x)),
        "operations_per_second": rates,
        "share": asdict(ratio(rates["diascope"], rates["convolution"])),
    }


def _fastest(
    shapes: Sequence[tuple[int, int]],
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    at_least: float,
) -> tuple[tuple[int, int], Callable[[int], object], float]:
    """Return the shape of the highest rate, a contender of so many seconds, and its operations."""
    best, found = 0.0, None
    with _searching():
        for channels, side in shapes:
            once = _convolution(batch, channels, side, dtype, device)
            work = 2 * 2 * 9 * channels**2 * side**2 * batch
            once(0), once(0)
            seconds = min(timed(once, 0, device) for _ in range(5))
            if work / seconds > best:
                best, found = work / seconds, ((channels, side), once, work, seconds)
    assert found is not None
    shape, once, work, seconds = found
    times = max(1, round(at_least / seconds))

    def repeated(number: int) -> None:
        with _searching():
            for _ in range(times):
                once(number)

    return shape, repeated, work * times


class _searching:
    """cuDNN looks for its fastest kernel, as it does for the attack."""

    def __enter__(self) -> None:
        self.before = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = True

    def __exit__(self, *_: object) -> None:
        torch.backends.cudnn.benchmark = self.before


def _convolution(
    batch: int, channels: int, side: int, dtype: torch.dtype, device: torch.device
) -> Callable[[int], object]:
    last: dict[str, Any] = {"memory_format": torch.channels_last}
    x = torch.randn(batch, channels, side, side, device=device, dtype=dtype).to(**last)
    weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype).to(**last)
    upstream = torch.randn_like(x)
    x.requires_grad_(True)

    def once(_: int) -> Tensor:
        out = F.conv2d(x, weight, padding=1)
        return torch.autograd.grad(out, x, upstream)[0]

    return once


@torch.no_grad()
def forward_operations(model: nn.Module, x: Tensor) -> int:
    """Return the operations of one forward pass of x (B, C, H, W), two a multiply-add.

    Convolutions and linear layers alone.
    """
    total = 0

    def count(module: nn.Module, _: object, out: Tensor) -> None:
        nonlocal total
        if isinstance(module, nn.Conv2d):
            total += 2 * out.numel() * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            total += 2 * out.numel() * module.in_features

    hooks = [module.register_forward_hook(count) for module in model.modules()]
    try:
        with evaluating(model) as inner:
            inner(x)
    finally:
        for hook in hooks:
            hook.remove()
    return total


if __name__ == "__main__":
    entry(main)
