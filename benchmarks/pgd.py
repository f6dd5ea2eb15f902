"""Time our PGD in L2 (7 steps of eps / 5, random start) beside the peers': rows a and b.

Row a: 16 images of 224; row b: 32 images of 64; ResNet-18. Training's attack: nobody stops
early, so that everyone computes the same number of gradients. With `--stop-early` ours lets go of
an image as soon as it is broken, as for a verdict; the peers' PGD has no such choice. What that
gains hangs on the model and its images: name a trained one.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.inputs import Bench, entry, open_bench, parser
from benchmarks.record import append, circumstances, setting_lines, speed_lines
from benchmarks.timing import Contender, compared, rounds
from diascope.attacks import PGD, scale_eps

ROWS = {"a": (224, 16), "b": (64, 32)}  # row -> size, images
QUICK = {"a": (48, 2), "b": (32, 2)}
STEPS, REL_STEP_SIZE = 7, 0.2
EPS = 4.0  # at 224, as P1; elsewhere in proportion to the number of pixels


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Time the rows asked for, append them to the results and print them."""
    args = _options(argv)
    sizes = QUICK if args.quick else ROWS
    records = []
    for row in args.rows:
        size, images = sizes[row]
        bench = open_bench(args, ["standard"], args.images or images, size)
        record = measure(row, bench, args)
        append(args.results, Path(__file__).stem, record)
        records.append(record)
    print("\n".join([*setting_lines(records[-1]), *speed_lines(records)]))
    return records


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "", pairs=12)
    options.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    options.add_argument("--images", type=int, help="images instead of the row's own number")
    options.add_argument("--stop-early", action="store_true", help="ours, at what is broken")
    args = options.parse_args(argv)
    if args.quick:
        args.pairs = min(args.pairs, 2)
    return args


def measure(row: str, bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """Return the record of one row."""
    net, x = bench.nets["standard"], bench.x
    y, size = bench.labels(net), x.shape[-1]
    eps = scale_eps(EPS, size)
    ours = PGD(
        norm="l2",
        eps=eps,
        steps=STEPS,
        rel_step_size=REL_STEP_SIZE,
        stop_early=args.stop_early,
    )
    theirs = {
        name: peers.pgd(name, net.model, "l2", eps, STEPS, REL_STEP_SIZE * eps)
        for name in peers.installed()
    }
    model = peers.own_copy(net.model)
    contenders: dict[str, Contender] = {
        "diascope": lambda number: ours(model, x, y, generator=_generator(number))
    }
    contenders |= {name: partial(_run, run, x, y) for name, run in theirs.items()}
    device = torch.device(args.device)
    early = ", early" if args.stop_early else ""
    return {
        "row": row,
        "title": f"PGD-L2, {STEPS} steps, {len(x)} images of {size}{early}",
        **circumstances(device),
        "notes": list(bench.notes),
        "quick": args.quick,
        "settings": {
            "eps": eps,
            "steps": STEPS,
            "stop_early": args.stop_early,
            "images": len(x),
            "size": size,
        },
        **compared(rounds(contenders, args.pairs, device), len(x)),
    }


def _run(attack: peers.Attacker, x: Tensor, y: Tensor, number: int) -> Tensor:
    torch.manual_seed(number)
    return attack(x, y)


def _generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


if __name__ == "__main__":
    entry(main)
