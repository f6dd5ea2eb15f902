"""How much effort does the worst case need? What ever stronger attacks leave of a study's nets.

    python -m benchmarks.strongest RUN ... --store runs/studies --data DATA --eps 0.2 --norm linf

RUN: the key of a training in the store (`runs/KEY`). On images that the net classifies correctly,
each attack from the image anew: none is spared by another. Then what is left of the images by all
of the attacks of a level together, which is what the strongest attack of a study comes to.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from diascope.attacks import APGD, FAB, PGD, Attack, Square
from diascope.attacks.base import verdict
from diascope.attacks.threat import Norm, Threat
from diascope.audit.subject import open_subjects
from diascope.data import Pixels
from diascope.studies.images import tested
from diascope.studies.store import Store
from diascope.studies.study import TestSpec

ROUNDING = 1e-6  # what float32 may add to the size of a change
LEVELS = {
    "20 steps, 2 classes": ("ce 20", "ratio 20 of 2", "fab 20 of 2", "square 100"),
    "50 steps, 9 classes": ("ce 50", "ratio 50"),
    "100 steps": ("ce 100", "ratio 100"),
    "100 steps, 2 starts": ("ce 100 x 2", "ratio 100 x 2", "square 1000"),
}  # and "all"


def efforts(norm: Norm, classes: int) -> dict[str, Attack]:
    """Return attacks of one norm, by name: from what a test affords to what an hour does."""
    ce = APGD(norm=norm, steps=100)
    ratio = APGD(norm=norm, steps=100, loss="dlr-targeted" if classes > 2 else "margin")
    fab = FAB(norm=norm, steps=50, targets=min(9, classes - 1))
    return {
        "ce 20": replace(ce, steps=20),
        "ce 50": replace(ce, steps=50),
        "ce 100": ce,
        "ce 100 x 2": replace(ce, restarts=2),
        "ce 300 x 3": replace(ce, steps=300, restarts=3),
        "ratio 20 of 2": replace(ratio, steps=20, targets=2),
        "ratio 50": replace(ratio, steps=50),
        "ratio 100": ratio,
        "ratio 100 x 2": replace(ratio, restarts=2),
        "pgd 200 x 5": PGD(norm=norm, steps=200, rel_step_size=0.02, restarts=5),
        "fab 20 of 2": replace(fab, steps=20, targets=min(2, classes - 1)),
        "fab 50": fab,
        "square 100": Square(norm=norm, queries=100),
        "square 1000": Square(norm=norm, queries=1000),
        "square 5000": Square(norm=norm, queries=5000),
    }


def main(argv: Sequence[str] | None = None) -> dict[str, Mapping[str, int]]:
    """Attack, print the table, and return how many images are left, by run and attack or level."""
    args = _options(argv)
    found = {}
    for key in args.runs:
        model, pixels = _opened(Store(args.store), key, args.data, args.images)
        rows = np.arange(len(pixels))
        x, y, ids = pixels.x(rows), pixels.y(rows), pixels.ids(rows)
        right = ~verdict(model, x, y, batch_size=100)
        print(f"{key}: {len(x)} images, {int(right.sum())} right, eps {args.eps:g}")
        found[key] = _left(model, x[right], y[right], ids[right], args)
    return found


def _opened(store: Store, key: str, data: Path | None, images: int) -> tuple[nn.Module, Pixels]:
    content = store.trained(key)["content"]
    subject = open_subjects([store.run(key)])[0]
    return subject.model, tested(TestSpec(images=images), content, subject, [], store, data).pixels


def _left(
    model: nn.Module, x: Tensor, y: Tensor, ids: Tensor, args: argparse.Namespace
) -> dict[str, int]:
    broken, threat = {}, Threat(args.norm, args.eps)
    for name, attack in efforts(args.norm, model(x[:1]).shape[1]).items():
        began = time.process_time()
        here: Attack = replace(attack, eps=args.eps)  # type: ignore[type-var]
        points = here(model, x, y, generator=torch.Generator().manual_seed(args.seed), ids=ids)
        within = threat.size(points - x) <= args.eps + ROUNDING
        broken[name] = verdict(model, points, y, batch_size=100) & within
        left, spent = int((~broken[name]).sum()), time.process_time() - began
        print(f"  {name:14} {left:4} left, {spent:.0f} s of the processor", flush=True)
    counts = {name: int((~each).sum()) for name, each in broken.items()}
    for level, names in {**LEVELS, "all": tuple(broken)}.items():
        together = torch.stack([broken[name] for name in names]).any(0)
        counts[level] = int((~together).sum())
        print(f"  {level}: {counts[level]} left")
    return counts


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__)
    add = options.add_argument
    add("runs", nargs="+", metavar="RUN", help="the key of a training in the store")
    add("--store", type=Path, default=Path("runs/studies"))
    add("--data", type=Path, help="the folder of all data")
    add("--eps", type=float, required=True)
    add("--norm", choices=["linf", "l2", "l1"], default="linf")
    add("--images", type=int, default=100, help="of the test images, drawn as studies draw them")
    add("--seed", type=int, default=0)
    return options.parse_args(argv)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
