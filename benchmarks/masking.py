"""Run the fourteen checks on masked gradients on honest nets and on nets with a planted fault.

Printed is a line a net: the numbers of the checks that failed, and those left undecided; then how
many of the honest nets each check failed on, and how many of the faults it was built for it
found. A record a net goes to the results.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.inputs import entry, parser
from benchmarks.masked_nets import GRIDS, HONEST, PLANTED, Honest, conv_net, pictures, trained
from benchmarks.record import append, circumstances, setting_lines
from diascope.attacks import PGD
from diascope.audit.masking import MASKING, run_masking
from diascope.audit.masking.stand import Stand

Record = dict[str, Any]
SHOWN = (  # what of the honest nets is printed beside the verdicts
    ("plateau", "points"),
    ("gradients", "saturated"),
    ("gradients", "zero_cross_entropy"),
    ("agreement", "disagree"),
    ("agreement", "median_error"),
    ("agreement", "cosine"),
    ("losses", "points"),
    ("contract", "batch"),
    ("contract", "apart"),
)


def main(argv: Sequence[str] | None = None) -> list[Record]:
    """Check every net, append the records and print them."""
    args = _options(argv)
    shared = circumstances(torch.device("cpu"))
    records = []
    for kind, name, fails, stand in _stands(args):
        outcomes = run_masking(stand)
        records.append(
            {
                "kind": kind,
                "name": name,
                "built_to_fail": list(fails),
                "accuracy": float(stand.correct.double().mean()),
                "passes": stand.meter.passes,
                "outcomes": {
                    o.name: [o.verdict, o.evidence if o.verdict == "failed" else ""]
                    for o in outcomes
                },
                "numbers": {o.name: o.numbers for o in outcomes},
                **shared,
            }
        )
        append(args.results, Path(__file__).stem, records[-1])
        print(line(records[-1]), flush=True)
    print("\n".join([*setting_lines(records[-1]), *table(records), *ranges(records)]))
    return records


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = parser(__doc__ or "", models=False)
    add = options.add_argument
    add("--images", type=int, default=64)
    add("--steps", type=int, default=20)
    add("--queries", type=int, default=300)
    add("--only", nargs="+", default=[], help="nets and faults by name; all without")
    args = options.parse_args(argv)
    if args.quick:
        args.images, args.steps, args.queries = 12, 2, 10
        args.only = args.only or ["linear", "rounds its pixels"]
    return args


def _stands(args: argparse.Namespace) -> Iterator[tuple[str, str, tuple[str, ...], Stand]]:
    """Yield kind, name, the checks that must fail, and the stand of each net."""
    for honest in HONEST:
        if not args.only or honest.name in args.only:
            net = trained(honest.build, **honest.options)
            yield "honest", honest.name, (), stand(net, honest, args)
    plain = trained(conv_net, steps=10 if args.quick else 150)
    for fault in PLANTED:
        if not args.only or fault.name in args.only:
            net = plain if fault.layer is None else fault.layer(plain)
            attack = None if fault.attack is None else replace(fault.attack, steps=args.steps)
            yield "planted", fault.name, fault.fails, stand(net, HONEST[0], args, attack)


def stand(
    net: nn.Module, kind: Honest, args: argparse.Namespace, attack: PGD | None = None
) -> Stand:
    """Return the stand of a net on fresh pictures of its task."""
    x, y = pictures(args.images, kind.classes, kind.side, seed=7)
    grid, eps = GRIDS[kind.norm]
    return Stand(
        net,
        x,
        y,
        torch.arange(len(x)),
        kind.norm,  # type: ignore[arg-type]
        eps,
        grid,
        steps=args.steps,
        queries=args.queries,
        attack=attack,
        seed=args.seed,
    )


def line(record: Record) -> str:
    """Return one net's numbers: its accuracy, failed and undecided checks, passes."""
    numbers = {name: place for place, name in enumerate(_names(record), 1)}
    told = []
    for verdict in ("failed", "undecided"):
        those = [str(numbers[n]) for n, (v, _) in record["outcomes"].items() if v == verdict]
        told.append(f"{verdict} {', '.join(those) or 'none'}")
    start = f"{record['kind']:<8}{record['name']:<30}{record['accuracy']:>7.3f}"
    return f"{start}{record['passes']:>9.0f}  {'; '.join(told)}"


def table(records: Sequence[Record]) -> list[str]:
    """Return a line a check: its alarms on honest nets, and the faults found of those planted."""
    honest = [r for r in records if r["kind"] == "honest"]
    lines = [f"{'check':<18}{'honest, failed':>16}{'undecided':>11}{'its faults, found':>19}"]
    for place, name in enumerate(_names(records[0]), 1):
        verdicts = [r["outcomes"][name][0] for r in honest]
        built = [r["outcomes"][name][0] for r in records if name in r["built_to_fail"]]
        lines.append(
            f"{place:>2} {name:<15}{verdicts.count('failed'):>9} of {len(verdicts):<3}"
            f"{verdicts.count('undecided'):>11}{built.count('failed'):>12} of {len(built)}"
        )
    return lines


def ranges(records: Sequence[Record]) -> list[str]:
    """Return between what the numbers of some checks lie for the honest nets."""
    honest = [r["numbers"] for r in records if r["kind"] == "honest"]
    lines = []
    for check, number in SHOWN:
        values = [numbers[check][number] for numbers in honest if number in numbers[check]]
        if values:
            lines.append(f"honest, {check}, {number}: {min(values):.3g} to {max(values):.3g}")
    return lines


def _names(record: Record) -> list[str]:
    """Return the names of the checks in the order of their numbers."""
    names = list(record["outcomes"])
    assert len(names) == len(MASKING.names())
    return names


if __name__ == "__main__":
    entry(main)
