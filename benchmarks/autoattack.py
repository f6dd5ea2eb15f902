"""Time our AutoAttack (standard) beside torchattacks' on a robust model: row f.

64 images of 64. The threat is the one that the model was trained against (its norm and epsilon),
else L-inf 2/255. torchattacks' needs four classes or more; as it comes its iterative members take
10 steps instead of the standard version's 100, so it is timed with 100 ("torchattacks") and, at
a tenth of the gradients, as it comes ("as it comes").
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
from benchmarks.inputs import Bench, Net, entry, open_bench, parser
from benchmarks.record import append, circumstances, setting_lines, speed_lines
from benchmarks.timing import compared, rounds
from diascope.attacks import PGD
from diascope.attacks.base import verdict
from diascope.attacks.threat import Norm

SIZE, IMAGES = 64, 64
QUICK = {"steps": 5, "queries": 20}


def main(argv: Sequence[str] | None = None) -> list[dict[str, Any]]:
    """Time the row, append it to the results and print it."""
    options = parser(__doc__ or "", pairs=2)
    options.add_argument("--images", type=int, default=IMAGES, help="images under attack")
    add_threat(options)
    args = options.parse_args(argv)
    size = SIZE
    if args.quick:
        args.pairs, args.images, size = 1, 2, 16
    record = measure(open_bench(args, ["robust"], args.images, size), args)
    append(args.results, Path(__file__).stem, record)
    print("\n".join([*setting_lines(record), *speed_lines([record])]))
    return [record]


def add_threat(options: argparse.ArgumentParser) -> None:
    """Add the options that `threat_of` reads."""
    options.add_argument("--norm", choices=("linf", "l2"), help="AutoAttack's norm")
    options.add_argument("--eps", type=float, help="AutoAttack's epsilon, in pixel units")


def threat_of(net: Net, args: argparse.Namespace) -> tuple[Norm, float]:
    """Return norm and epsilon: those asked for, else of the net's training, else L-inf 2/255."""
    if (args.norm is None) != (args.eps is None):
        raise SystemExit("give --norm and --eps together")
    if args.norm is not None:
        return args.norm, args.eps
    trained = net.training_attack
    if trained.get("norm") in ("linf", "l2") and "eps" in trained:
        return trained["norm"], float(trained["eps"])
    return "linf", 2 / 255


def their_versions(
    net: Net, norm: Norm, eps: float, args: argparse.Namespace
) -> dict[str, peers.Attacker]:
    """Return torchattacks' AutoAttack with the standard version's steps, and as it comes."""
    build = partial(peers.torchattacks_autoattack, net.model, norm, eps, args.seed)
    queries = QUICK["queries"] if args.quick else 5000
    return {
        "torchattacks": build(steps=QUICK["steps"] if args.quick else 100, queries=queries),
        "as it comes": build(steps=None, queries=queries),
    }


def measure(bench: Bench, args: argparse.Namespace) -> dict[str, Any]:
    """Return the record of row f, with both robust accuracies."""
    from diascope.attacks import AutoAttack

    net, device, x = bench.nets["robust"], torch.device(args.device), bench.x
    y, model = bench.labels(net), peers.own_copy(net.model)
    norm, eps = threat_of(net, args)
    quick = QUICK if args.quick else {}
    attack = AutoAttack(norm=norm, eps=eps, **quick)
    theirs = their_versions(net, norm, eps, args)
    found: dict[str, Tensor] = {}

    def ours(number: int) -> None:
        generator = torch.Generator().manual_seed(args.seed)
        found["diascope"] = attack(model, x, y, generator=generator)

    def their(name: str, number: int) -> None:
        found[name] = theirs[name](x, y)

    def warm_up() -> None:
        PGD(norm=norm, eps=eps, steps=1)(model, x, y)
        peers.pgd("torchattacks", net.model, norm, eps, 1, eps)(x, y)

    contenders = {"diascope": ours} | {name: partial(their, name) for name in theirs}
    seconds = rounds(contenders, args.pairs, device, warm_up=warm_up)
    return {
        "row": "f",
        "title": f"AutoAttack, {net.kind}, {len(x)} images of {x.shape[-1]}",
        **circumstances(device),
        "notes": [*bench.notes, f"threat: {norm}, eps {eps:.4g}"],
        "quick": args.quick,
        "settings": {"norm": norm, "eps": eps, "images": len(x), "size": x.shape[-1]},
        **compared(seconds, len(x)),
        "accuracy": {
            name: 1 - verdict(net.model, x_adv, y).double().mean().item()
            for name, x_adv in found.items()
        },
    }


if __name__ == "__main__":
    entry(main)
