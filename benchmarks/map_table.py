"""Maps of two kinds of models by every measure that needs no model: a row a measure.

Models of a kind differ by their training seed; the first of one kind is paired with the first of
the other, and so on. Maps are of the true class. Each seed's difference stands beside the others,
with its interval over images, group-clustered; with few seeds nothing is said of new ones.

    python -m benchmarks.map_table --a RUN... --b RUN... --data DATA [--method NAME ...] [--hair]

`--hair` adds the share of a map on the phantom's hairs (P1 blames robust models' maps for it).
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope.audit.images import Test, unseen_pixels
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject, open_subjects
from diascope.data import load_region, open_data
from diascope.evaluation import (
    MassInside,
    bootstrap_difference,
    bootstrap_mean,
    localisation_table,
)
from diascope.evaluation.measures import MEASURES, members
from diascope.explain import explainers, rectify
from diascope.models import heads
from diascope.models.modes import exactly

Columns = dict[str, Any]
LEVELS = ("chance", "centre")
HAIR = "mass_on_hair"


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--a", nargs="+", required=True, help="run folders, one a seed")
    options.add_argument("--b", nargs="+", default=[], help="as many of the other kind")
    options.add_argument("--data", required=True)
    options.add_argument("--method", nargs="+", default=["gradient"])
    options.add_argument("--images", type=int, default=None, help="at most so many; all")
    options.add_argument("--regions", action="store_true", help="only images with a mask or box")
    options.add_argument("--hair", action="store_true", help="the share on the phantom's hairs")
    options.add_argument("--json", default=None, help="a file for the columns' means")
    args = options.parse_args(arguments)
    if args.b and len(args.a) != len(args.b):
        options.error("--a and --b pair: give as many of each")
    found = []
    for method in args.method:
        for seed in range(len(args.a)):
            pair = [kind[seed] for kind in (args.a, args.b) if kind]
            found.append({"method": method, "seed": seed, **compared(pair, method, args)})
            print(f"## {method}, pair {seed}: {' and '.join(pair)}\n\n{table(found[-1])}\n")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(found, file, indent=1)


def compared(runs: Sequence[str], method: str, args: argparse.Namespace) -> dict[str, Any]:
    """Return each measure's interval of each run, and of the difference of the last and first."""
    subjects = [open_subjects([run])[0] for run in runs]
    test = unseen_pixels(open_data(args.data), subjects, AuditSettings(images=args.images))
    columns = [measured(subject, test, method, args) for subject in subjects]
    rows = columns[0].pop("rows")
    groups = test.pixels.dataset.groups[rows]
    right = np.logical_and.reduce([c.pop("correct") for c in columns])
    for c in columns[1:]:
        c.pop("rows")
    out: dict[str, Any] = {"images": len(rows), "correct by all": int(right.sum()), "measures": {}}
    for name in columns[0]:
        values = [c[name] for c in columns]
        line: dict[str, Any] = {"each": [format(bootstrap_mean(v, groups)) for v in values]}
        if len(values) == 2:
            line["difference"] = format(bootstrap_difference(values[1], values[0], groups), "+.3f")
            some = (v[right] for v in reversed(values))
            line["correct"] = format(bootstrap_difference(*some, groups[right]), "+.3f")
        out["measures"][name] = line
    return out


def measured(subject: Subject, test: Test, method: str, args: argparse.Namespace) -> Columns:
    """Return the measures of one model's maps, (N,) each, and which images they are of."""
    pixels, explainer, parts = test.pixels, explainers.build(method), list[Columns]()
    rows = np.flatnonzero(pixels.has_mask) if args.regions else np.arange(len(pixels.dataset))
    hairs = load_region(pixels.dataset, "hair", pixels.size) if args.hair else None
    for some in np.array_split(rows, max(1, math.ceil(len(rows) / 64))):
        x, y, ids = pixels.x(some), pixels.y(some), pixels.ids(some)
        seeded = torch.Generator().manual_seed(0)
        heat = rectify(
            explainer(subject.model, x, y, generator=seeded, ids=ids), explainer.rectification
        )
        part: Columns = {name: m(heat).numpy() for name, m in members("sharpness").items()}
        if pixels.masks is not None:
            mask = pixels.m(some)
            part |= localisation_table(heat, mask)
            part |= {n: m(heat, x, mask).numpy() for n, m in members("colour").items()}
        if hairs is not None:
            part |= _on_hair(heat, torch.as_tensor(hairs[some]).bool())
        with torch.no_grad(), exactly(subject.model) as inner:
            part["correct"] = heads.is_correct(inner(x), y).numpy()
        parts.append(part)
    return {"rows": rows} | {k: np.concatenate([p[k] for p in parts]) for k in parts[0]}


def _on_hair(heat: Tensor, hair: Tensor) -> Columns:
    """Return the share of each map on hairs, beside chance; NaN where an image has none."""
    on = MassInside()
    return {HAIR: on(heat, hair).numpy(), f"{HAIR}_chance": on.chance(hair).numpy()}


def table(found: dict[str, Any]) -> str:
    """Return the measures as a Markdown table; chance and centre prior beside localisation."""
    measures = found["measures"]
    lines = [
        f"{found['images']} images, {found['correct by all']} classified correctly by all.",
        "",
    ]
    lines += ["| measure | better | chance | centre | a | b | b - a | b - a, all correct |"]
    lines += ["|" + "---|" * 8]
    for name, line in measures.items():
        if name not in MEASURES and name != HAIR:
            continue
        better = "higher" if name != HAIR and MEASURES[name].higher_is_better else "lower"
        levels = [measures.get(f"{name}_{of}", {"each": [""]})["each"][0] for of in LEVELS]
        cells = [name.replace("_", " "), better, *(level.split(" ")[0] for level in levels)]
        cells += [*[*line["each"], ""][:2], line.get("difference", ""), line.get("correct", "")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
