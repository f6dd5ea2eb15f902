"""Compare robust accuracies: ours must not exceed a peer's by more than half a point.

For every attack that is timed, on the same images, labels, epsilons, steps and step sizes, on a
standard and a robust model. Every image that anyone gives back is judged by one judge: the model
itself, in float32, in eval mode (`diascope.attacks.base.verdict`, which our curve asks too).
Attacks that give images back have them checked against ball and pixel bounds as well.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import peers
from benchmarks.autoattack import add_threat, threat_of
from benchmarks.curve import EPSILONS, our_curve
from benchmarks.inputs import Bench, Net, entry, open_bench, parser
from benchmarks.pgd import EPS, REL_STEP_SIZE, STEPS
from benchmarks.record import append, circumstances, setting_lines, strength_lines
from diascope.attacks import PGD, Threat, scale_eps
from diascope.attacks.base import verdict

TOLERANCE = 0.5  # percentage points
Finding = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> list[Finding]:
    """Compare, append every finding to the results as it comes, and print the table."""
    args = _options(argv)
    bench = open_bench(args, args.models, args.images, args.size)
    shared = circumstances(torch.device(args.device))
    findings = []
    for kind in args.models:
        net = bench.nets[kind]
        for name in args.attacks:
            for found in COMPARISONS[name](bench, net, args):
                about = {"attack": name, "model": kind, "size": args.size}
                findings.append(about | found | _judged(found, bench, net))
                record = {**findings[-1], **shared, "quick": args.quick, "notes": list(bench.notes)}
                append(args.results, Path(__file__).stem, record)
                print(strength_lines(findings[-1:])[-1], flush=True)
    print("\n".join(["", *setting_lines(record), *strength_lines(findings)]))
    return findings


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "")
    add = options.add_argument
    add("--size", type=int, default=224, help="height and width of the images")
    add("--images", type=int, default=500, help="how many of the test images, drawn by lot")
    add("--batch-size", type=int, default=50, help="of every attack")
    add("--attacks", nargs="+", choices=tuple(COMPARISONS), default=list(COMPARISONS))
    add("--models", nargs="+", choices=("standard", "robust"), default=["standard", "robust"])
    add("--shares", nargs="+", type=float, default=[0.1, 1.0], help="of eps for the PGD rows")
    add_threat(options)
    args = options.parse_args(argv)
    if args.quick:
        args.size, args.images, args.batch_size, args.shares = 16, 2, 2, [1.0]
    return args


def _judged(found: Finding, bench: Bench, net: Net) -> Finding:
    points = 100 * (found["accuracy"] - found["peer_accuracy"])
    return {
        "images": len(bench.x),
        "clean_accuracy": _share(~verdict(net.model, bench.x, bench.labels(net))),
        "points": points,
        "no_weaker": points <= TOLERANCE + 1e-9,
        "meaningful": net.trained and bench.y is not None,
    }


def _pgd(bench: Bench, net: Net, args: argparse.Namespace) -> Iterator[Finding]:
    """PGD-L2 of rows a and b against every peer, at shares of P1's epsilon."""
    y = bench.labels(net)
    for share in args.shares:
        eps = share * scale_eps(EPS, args.size)
        attack = PGD(norm="l2", eps=eps, steps=STEPS, rel_step_size=REL_STEP_SIZE)
        generator = torch.Generator().manual_seed(args.seed)

        def ours(x: Tensor, y: Tensor, attack: PGD = attack, g: Any = generator) -> Tensor:
            return attack(net.model, x, y, generator=g)

        stands, _ = _attacked(ours, bench.x, y, net, Threat("l2", eps), args.batch_size)
        for name in peers.installed():
            run = peers.pgd(name, net.model, "l2", eps, STEPS, REL_STEP_SIZE * eps)
            torch.manual_seed(args.seed)
            theirs, excess = _attacked(run, bench.x, y, net, Threat("l2", eps), args.batch_size)
            yield _compared(name, eps, stands, theirs) | {"peer_excess": excess}


def _curve(bench: Bench, net: Net, args: argparse.Namespace) -> Iterator[Finding]:
    """The curve of rows d and e against foolbox's, at each of P2's epsilons."""
    x, y = bench.x, bench.labels(net)
    steps = 4 if args.quick else 40
    correct = our_curve(net.model, x, y, steps, args.seed).correct
    run = peers.foolbox_curve(net.model, EPSILONS, steps, args.batch_size)
    torch.manual_seed(args.seed)
    stands, excess = [], torch.full((len(EPSILONS),), -1.0)
    for xs, ys in zip(
        torch.split(x, args.batch_size), torch.split(y, args.batch_size), strict=True
    ):
        advs = run(xs, ys)
        stands.append(torch.stack([~verdict(net.model, x_adv, ys) for x_adv in advs], 1).cpu())
        for place, (eps, x_adv) in enumerate(zip(EPSILONS, advs, strict=True)):
            found = _excess(x_adv, xs, Threat("linf", eps))
            excess[place] = max(found, float(excess[place]))
    theirs = torch.cat(stands)
    for place, eps in enumerate(EPSILONS):
        yield _compared("foolbox", eps, correct[:, place], theirs[:, place]) | {
            "peer_excess": float(excess[place]),
            "peer_accuracy_nested": _share(theirs[:, : place + 1].all(1)),
        }


def _autoattack(bench: Bench, net: Net, args: argparse.Namespace) -> Iterator[Finding]:
    """AutoAttack of row f against torchattacks'."""
    from diascope.attacks import AutoAttack

    norm, eps = threat_of(net, args)
    attack = AutoAttack(norm=norm, eps=eps)
    generator = torch.Generator().manual_seed(args.seed)
    threat, y = Threat(norm, eps), bench.labels(net)
    run = peers.torchattacks_autoattack(net.model, norm, eps, args.seed)

    def ours(x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = attack(net.model, x, y, generator=generator)
        return found

    stands, _ = _attacked(ours, bench.x, y, net, threat, args.batch_size)
    theirs, excess = _attacked(run, bench.x, y, net, threat, args.batch_size)
    yield _compared("torchattacks", eps, stands, theirs) | {"norm": norm, "peer_excess": excess}


COMPARISONS: dict[str, Callable[[Bench, Net, argparse.Namespace], Iterator[Finding]]] = {
    "pgd-l2-7": _pgd,
    "curve": _curve,
    "autoattack": _autoattack,
}


def _attacked(
    attack: peers.Attacker, x: Tensor, y: Tensor, net: Net, threat: Threat, batch_size: int
) -> tuple[Tensor, float]:
    """Return which images withstand the attack, (N,) bool, and how far it left the ball."""
    parts = zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
    x_adv = torch.cat([attack(xs, ys).detach().to(x.dtype) for xs, ys in parts])
    return ~verdict(net.model, x_adv, y).cpu(), _excess(x_adv, x, threat)


def _excess(x_adv: Tensor, x: Tensor, threat: Threat) -> float:
    """Return by how much the largest perturbation exceeds eps, as a share of it.

    Raises where an image leaves [0, 1].
    """
    if x_adv.min() < 0 or x_adv.max() > 1:
        raise RuntimeError(f"pixels from {x_adv.min():.3g} to {x_adv.max():.3g}")
    return float(threat.size(x_adv - x).max() / threat.eps - 1)


def _compared(peer: str, eps: float, ours: Tensor, theirs: Tensor) -> Finding:
    """Return both accuracies, and on how many images the two disagree."""
    return {
        "peer": peer,
        "eps": eps,
        "accuracy": _share(ours),
        "peer_accuracy": _share(theirs),
        "broken_by_ours_alone": int((~ours & theirs).sum()),
        "broken_by_peer_alone": int((ours & ~theirs).sum()),
    }


def _share(values: Tensor) -> float:
    return values.double().mean().item()


if __name__ == "__main__":
    entry(main)
