"""Compare robust accuracies: ours must not exceed a peer's by more than half a point.

For every attack that is timed, on the same images, labels, epsilons, steps and step sizes, on a
standard and a robust model. Every image that anyone gives back is judged by one judge: the model
itself, in float32, in eval mode (`diascope.attacks.base.verdict`, which our curve asks too). `lead`
compares our own curve with one that attacks in full at every epsilon, in 10 steps and in 40,
`fab` and `square` ours in bfloat16 with the same in float32, and `boundary` ours with foolbox's
from equal starts, at the L2 distances within which a tenth, a quarter ... of its points lie.
An image outside ball or pixel bounds counts as not attacked, and is counted. Where
random starts decide over a few images a difference may be chance: `p` is the probability of so
many more images broken by the peer alone, were both equally strong (the one-sided sign test).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import boundary, peers
from benchmarks.autoattack import QUICK, add_threat, their_versions, threat_of
from benchmarks.curve import EPSILONS, our_curve
from benchmarks.inputs import Bench, Net, entry, open_bench, parser
from benchmarks.pgd import EPS, REL_STEP_SIZE, STEPS
from benchmarks.record import append, circumstances, setting_lines, strength_lines
from diascope.attacks import PGD, Threat, robustness_curve, scale_eps
from diascope.attacks.base import verdict
from diascope.attacks.trial import Warm
from diascope.models.frozen import Arithmetic

TOLERANCE = 0.5  # percentage points
BOUNDARY_SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)  # of foolbox's points, whose distance is an epsilon
FAB_SHARES = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the threat's epsilon
WARMS: tuple[Warm, Warm] = ("lead", "verdict")
Finding = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> list[Finding]:
    """Compare, append every finding to the results as it comes, and print the table."""
    args = _options(argv)
    bench = open_bench(args, args.models, args.images, args.size)
    shared = circumstances(torch.device(args.device))
    findings = []
    print(strength_lines([])[0])
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
            theirs, outside = _attacked(run, bench.x, y, net, Threat("l2", eps), args.batch_size)
            yield _compared(name, eps, stands, theirs) | {"peer_outside": outside}


def _curve(bench: Bench, net: Net, args: argparse.Namespace) -> Iterator[Finding]:
    """The curve of rows d and e against foolbox's, at each of P2's epsilons."""
    x, y = bench.x, bench.labels(net)
    steps = 4 if args.quick else 40
    correct = our_curve(net.model, x, y, steps, args.seed).correct
    run = peers.foolbox_curve(net.model, EPSILONS, steps, args.batch_size)
    torch.manual_seed(args.seed)
    stands, outside = [], 0
    for xs, ys in zip(*(torch.split(t, args.batch_size) for t in (x, y)), strict=True):
        threats = [Threat("linf", eps) for eps in EPSILONS]
        judged = [_withstood(a, xs, ys, net, t) for a, t in zip(run(xs, ys), threats, strict=True)]
        stands.append(torch.stack([stood for stood, _ in judged], 1))
        outside += sum(count for _, count in judged)
    theirs = torch.cat(stands)
    for place, eps in enumerate(EPSILONS):
        yield _compared("foolbox", eps, correct[:, place], theirs[:, place]) | {
            "peer_outside": outside,
            "peer_accuracy_nested": _share(theirs[:, : place + 1].all(1)),
        }


def _lead(bench: Bench, net: Net, args: argparse.Namespace) -> Iterator[Finding]:
    """Our curve, led by a brief climb, against our attack in full at every epsilon."""
    for steps in (4,) if args.quick else (10, 40):
        attack = PGD(norm="linf", steps=steps, stop_early=True)
        found: dict[Warm, Tensor] = {}
        for warm in WARMS:
            found[warm] = robustness_curve(
                net.model,
                bench.x,
                bench.labels(net),
                attack=attack,
                epsilons=EPSILONS,
                warm=warm,
                generator=torch.Generator().manual_seed(args.seed),
            ).correct
        for place, eps in enumerate(EPSILONS):
            led, plain = (found[warm][:, place] for warm in WARMS)
            yield _compared(f"in full, {steps}", eps, led, plain) | {"steps": steps}


def _autoattack(bench: Bench, net: Net, args: argparse.Namespace) -> Iterator[Finding]:
    """AutoAttack of row f against torchattacks'."""
    from diascope.attacks import AutoAttack

    norm, eps = threat_of(net, args)
    quick = QUICK if args.quick else {}
    attack = AutoAttack(norm=norm, eps=eps, **quick)
    generator = torch.Generator().manual_seed(args.seed)
    threat, y = Threat(norm, eps), bench.labels(net)

    def ours(x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = attack(net.model, x, y, generator=generator)
        return found

    stands, _ = _attacked(ours, bench.x, y, net, threat, args.batch_size)
    for name, run in their_versions(net, norm, eps, args).items():
        theirs, outside = _attacked(run, bench.x, y, net, threat, args.batch_size)
        yield _compared(name, eps, stands, theirs) | {"norm": norm, "peer_outside": outside}


def _fab(bench: Bench, net: Net, args: argparse.Namespace) -> Iterator[Finding]:
    """Our FAB with gradients in bfloat16 against the same in float32, by the distances found."""
    from diascope.attacks import FAB

    norm, eps = threat_of(net, args)
    attack = FAB(norm=norm, eps=None, steps=QUICK["steps"] if args.quick else 100)
    found: dict[Arithmetic, Tensor] = {}
    for precision in ("bf16", "float32"):
        generator = torch.Generator().manual_seed(args.seed)
        distances = [
            replace(attack, precision=precision).minimal(net.model, x, y, generator=generator)[1]
            for x, y in zip(
                *(torch.split(t, args.batch_size) for t in (bench.x, bench.labels(net))),
                strict=True,
            )
        ]
        found[precision] = torch.cat(distances).cpu()
    for share in FAB_SHARES:
        low, plain = found["bf16"] > share * eps, found["float32"] > share * eps
        yield _compared("in float32", share * eps, low, plain) | {
            "norm": norm,
            "median_distance": {name: each.median().item() for name, each in found.items()},
        }


def _square(bench: Bench, net: Net, args: argparse.Namespace) -> Iterator[Finding]:
    """Our Square with changes in bfloat16 against the same in float32."""
    from diascope.attacks import Square

    norm, eps = threat_of(net, args)
    attack = Square(norm=norm, eps=eps, queries=QUICK["queries"] if args.quick else 5000)
    stands: dict[Arithmetic, Tensor] = {}
    for precision in ("bf16", "float32"):
        run = replace(attack, precision=precision)
        generator = torch.Generator().manual_seed(args.seed)

        def ours(x: Tensor, y: Tensor, run: Square = run, g: Any = generator) -> Tensor:
            return run(net.model, x, y, generator=g)

        y, threat = bench.labels(net), Threat(norm, eps)
        stands[precision], _ = _attacked(ours, bench.x, y, net, threat, args.batch_size)
    yield _compared("in float32", eps, stands["bf16"], stands["float32"]) | {"norm": norm}


def _boundary(bench: Bench, net: Net, args: argparse.Namespace) -> Iterator[Finding]:
    """The Boundary Attack of row g against foolbox's, from equal starts, by the L2 distances."""
    from diascope.attacks import BoundaryAttack

    if not net.trained:
        boundary.fit(net, args.size, args.seed)
    rows, start = boundary.startable(bench, net, args.seed)
    x, y, queries = bench.x[rows], bench.labels(net)[rows], 200 if args.quick else 5000
    attack, generator = BoundaryAttack(queries=queries), torch.Generator().manual_seed(args.seed)
    torch.manual_seed(args.seed)
    found: dict[str, list[Tensor]] = {"ours": [], "foolbox": []}
    for part in torch.arange(len(rows)).split(args.batch_size):
        xs, ys, starts = x[part], y[part], start[part]
        ours = attack(net.model, xs, ys, start=starts, generator=generator)
        theirs = boundary.foolbox_walk(peers.own_copy(net.model), xs, ys, starts, queries)
        for name, x_adv in (("ours", ours), ("foolbox", theirs)):
            found[name].append(_distances(x_adv, xs, ys, net))
    ours, theirs = (torch.cat(each) for each in found.values())
    about = {
        "norm": "l2",
        "started": len(rows),
        "median_distance": {"ours": ours.median().item(), "foolbox": theirs.median().item()},
    }
    stands = ~verdict(net.model, bench.x, bench.labels(net)).cpu()
    for eps in theirs.quantile(torch.tensor(BOUNDARY_SHARES), interpolation="nearest").tolist():
        low, high = stands.clone(), stands.clone()
        low[rows.cpu()], high[rows.cpu()] = ours > eps, theirs > eps
        yield _compared("foolbox", eps, low, high) | about


def _distances(x_adv: Tensor, x: Tensor, y: Tensor, net: Net) -> Tensor:
    """Return the L2 distances (N,) on the host, inf where the model is not fooled."""
    away = Threat("l2", 0).size(x_adv - x)
    return torch.where(verdict(net.model, x_adv, y), away, torch.inf).cpu()


COMPARISONS: dict[str, Callable[[Bench, Net, argparse.Namespace], Iterator[Finding]]] = {
    "pgd-l2-7": _pgd,
    "curve": _curve,
    "lead": _lead,
    "autoattack": _autoattack,
    "fab": _fab,
    "square": _square,
    "boundary": _boundary,
}


def _attacked(
    attack: peers.Attacker, x: Tensor, y: Tensor, net: Net, threat: Threat, batch_size: int
) -> tuple[Tensor, int]:
    """Return which images withstand the attack, (N,) bool, and how many left the ball."""
    parts = zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
    x_adv = torch.cat([attack(xs, ys).detach().to(x.dtype) for xs, ys in parts])
    return _withstood(x_adv, x, y, net, threat)


def _withstood(x_adv: Tensor, x: Tensor, y: Tensor, net: Net, threat: Threat) -> tuple[Tensor, int]:
    """Return which images withstand, (N,) bool on the host, and how many are no example at all.

    These left the ball by more than rounding, or [0, 1]; the images themselves are judged.
    """
    outside = threat.size(x_adv - x) > threat.eps * (1 + 1e-3)
    outside |= ((x_adv < 0) | (x_adv > 1)).flatten(1).any(1)
    judged = torch.where(outside.view(-1, 1, 1, 1), x, x_adv)
    return ~verdict(net.model, judged, y).cpu(), int(outside.sum())


def _compared(peer: str, eps: float, ours: Tensor, theirs: Tensor) -> Finding:
    """Return both accuracies, and on how many images the two disagree."""
    alone, peer_alone = int((~ours & theirs).sum()), int((ours & ~theirs).sum())
    either = alone + peer_alone
    at_least = sum(math.comb(either, k) for k in range(peer_alone, either + 1))
    return {
        "peer": peer,
        "eps": eps,
        "accuracy": _share(ours),
        "peer_accuracy": _share(theirs),
        "broken_by_ours_alone": alone,
        "broken_by_peer_alone": peer_alone,
        "p": at_least / 2**either,
    }


def _share(values: Tensor) -> float:
    return values.double().mean().item()


if __name__ == "__main__":
    entry(main)
