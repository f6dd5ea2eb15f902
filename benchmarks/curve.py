"""Time our robustness curve over P2's nine L-inf epsilons beside foolbox's: rows d and e.

PGD with 40 steps of eps / 30 and a random start (foolbox's defaults, P2's attack), images of 224;
row d on an undefended model, row e on an adversarially trained one. Every round takes other
images, since the work that nested balls save depends on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.inputs import Bench, entry, open_bench, parser
from benchmarks.record import append, circumstances, setting_lines, speed_lines
from benchmarks.timing import compared, rounds
from diascope.attacks import PGD, RobustnessCurve, robustness_curve
from diascope.attacks.base import verdict

EPSILONS = (0.00125, 0.0025, 0.005, 0.01, 0.02, 0.04, 0.08, 0.16, 0.32)
STEPS, SIZE, IMAGES, BATCH = 40, 224, 16, 64
ROWS = {"d": "standard", "e": "robust"}


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Time the rows asked for, append them to the results and print them."""
    options = parser(__doc__ or "", pairs=3)
    options.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS))
    options.add_argument("--images", type=int, default=IMAGES, help="images of a round")
    options.add_argument("--size", type=int, default=SIZE, help="side of the images, in pixels")
    args = options.parse_args(argv)
    size, steps = args.size, STEPS
    if args.quick:
        args.pairs, args.images, size, steps = min(args.pairs, 2), 2, 32, 4
    kinds = [ROWS[row] for row in args.rows]
    bench = open_bench(args, kinds, args.images * args.pairs, size)
    records = []
    for row in args.rows:
        records.append(measure(row, bench, args, steps))
        append(args.results, Path(__file__).stem, records[-1])
    print("\n".join([*setting_lines(records[-1]), *speed_lines(records)]))
    return records


def our_curve(model: nn.Module, x: Tensor, y: Tensor, steps: int, seed: int) -> RobustnessCurve:
    """Return our curve over P2's epsilons."""
    return robustness_curve(
        model,
        x,
        y,
        attack=PGD(norm="linf", steps=steps, rel_step_size=1 / 30, stop_early=True),
        epsilons=EPSILONS,
        batch_size=BATCH,
        generator=torch.Generator().manual_seed(seed),
    )


def measure(row: str, bench: Bench, args: argparse.Namespace, steps: int) -> dict[str, Any]:
    """Return the record of one row, with the accuracies that both sides found on the way."""
    net, device = bench.nets[ROWS[row]], torch.device(args.device)
    y = bench.labels(net)
    parts = list(zip(torch.split(bench.x, args.images), torch.split(y, args.images), strict=True))
    model, judge = peers.own_copy(net.model), net.model
    theirs = peers.foolbox_curve(net.model, EPSILONS, steps, BATCH)
    found: dict[str, dict[int, Any]] = {"diascope": {}, "foolbox": {}}

    def ours(number: int) -> None:
        found["diascope"][number] = our_curve(model, *parts[number % len(parts)], steps, number)

    def foolbox(number: int) -> None:
        found["foolbox"][number] = theirs(*parts[number % len(parts)])

    def warm_up() -> None:
        x, y = parts[0][0][:2], parts[0][1][:2]
        our_curve(model, x, y, 1, 0)
        peers.foolbox_curve(net.model, EPSILONS[:1], 1, BATCH)(x, y)

    seconds = rounds({"diascope": ours, "foolbox": foolbox}, args.pairs, device, warm_up=warm_up)
    stands: list[Tensor] = []
    for number, advs in found["foolbox"].items():
        y = parts[number % len(parts)][1]
        stands.append(torch.stack([~verdict(judge, x_adv, y) for x_adv in advs], 1).cpu())
    return {
        "row": row,
        "title": f"curve, {len(EPSILONS)} eps, PGD-{steps}, {net.kind}, {args.images} of "
        f"{bench.x.shape[-1]}",
        **circumstances(device),
        "notes": list(bench.notes),
        "quick": args.quick,
        "settings": {"epsilons": EPSILONS, "steps": steps, "images": args.images},
        **compared(seconds, args.images),
        "accuracy": {
            "diascope": torch.cat([c.correct for c in found["diascope"].values()])
            .double()
            .mean(0)
            .tolist(),
            "foolbox": torch.cat(stands).double().mean(0).tolist(),
        },
    }


if __name__ == "__main__":
    entry(main)
