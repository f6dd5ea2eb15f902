"""How well do classifiers do at home, in another hospital, and within one source?

One table: models by panels, the AUROC (the mean over classes, one against the rest, where there
are more than two) and the balanced accuracy, clean and under PGD, each with a 95% interval from a
bootstrap over groups. A panel is a dataset; images that a model was trained or validated on are
left out of it, so the dataset of the training stands for the hospital at home.

    python -m benchmarks.hospitals --run NAME=RUN ... --panel NAME=DATA ... [--eps 4/255]

A panel written `NAME@=DATA` keeps the images of those sources that have every class: within them
the source does not tell the label outright.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diascope.attacks.base import attacks
from diascope.audit import open_subjects, unseen_pixels
from diascope.audit.run import Test
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject
from diascope.data import Dataset, open_data
from diascope.evaluation.scores import score_table
from diascope.models import heads
from diascope.models.modes import exactly

BATCH = 64
SCORES = {"auroc": "AUROC", "balanced_accuracy": "balanced accuracy"}


def main(arguments: Sequence[str] | None = None) -> list[dict[str, Any]]:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("--run", action="append", required=True, metavar="NAME=RUN")
    options.add_argument("--panel", action="append", required=True, metavar="NAME=DATA")
    options.add_argument("--images", type=int, default=None, help="at most so many of a panel")
    options.add_argument("--eps", type=Fraction, default=None, help="L-inf; none: no attack")
    options.add_argument("--steps", type=int, default=20)
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args(arguments)
    subjects = {name: open_subjects([run])[0] for name, run in map(_named, args.run)}
    panels = {name.rstrip("@"): _panel(name, data) for name, data in map(_named, args.panel)}
    settings = AuditSettings(images=args.images, seed=args.seed)
    found = []
    for panel, dataset in panels.items():
        test = unseen_pixels(dataset, list(subjects.values()), settings)
        found += [
            {"panel": panel, "model": name, **judged(subject, test, args)}
            for name, subject in subjects.items()
        ]
    print(table(found, attacked=args.eps is not None))
    return found


def judged(subject: Subject, test: Test, args: argparse.Namespace) -> dict[str, Any]:
    """Return the numbers of one model on one panel."""
    y = test.pixels.y(np.arange(len(test.pixels.dataset))).numpy()
    groups = test.pixels.dataset.groups
    out: dict[str, Any] = {"images": len(y), "groups": len(np.unique(groups.astype(str)))}
    for name, eps in {"clean": None, "attacked": args.eps}.items():
        if name == "clean" or eps is not None:
            p = probabilities(subject.model, test, eps, args)
            found = score_table(p, y, groups)
            out[name] = {words: found[key] for key, words in SCORES.items()}
    return out


def probabilities(
    model: nn.Module, test: Test, eps: Fraction | None, args: argparse.Namespace
) -> np.ndarray:
    """Return the probabilities (N, K), of the images or of PGD's examples."""
    parts: list[Tensor] = []
    for rows in np.array_split(np.arange(len(test.pixels.dataset)), _batches(test)):
        x, y, ids = test.pixels.x(rows), test.pixels.y(rows), test.pixels.ids(rows)
        if eps is not None:
            attack = attacks.build(
                {"name": "pgd", "norm": "linf", "eps": float(eps), "steps": args.steps}
            )
            seeded = torch.Generator().manual_seed(args.seed)
            x = attack(model, x, y, generator=seeded, ids=ids)
        with torch.no_grad(), exactly(model) as inner:
            parts.append(heads.probabilities(inner(x)))
    return torch.cat(parts).numpy()


def table(found: Sequence[Mapping[str, Any]], *, attacked: bool) -> str:
    """Return a Markdown table, a row a panel and model."""
    columns = ["clean", *(["attacked"] if attacked else [])]
    names = [f"{score}, {column}" for column in columns for score in SCORES.values()]
    lines = ["| panel | images | groups | model | " + " | ".join(names) + " |"]
    lines.append("|" + "---|" * (4 + len(names)))
    for row in found:
        values = [format(value, ".2f") for column in columns for value in row[column].values()]
        about = [row["panel"], str(row["images"]), str(row["groups"]), row["model"]]
        lines.append("| " + " | ".join([*about, *values]) + " |")
    return "\n".join(lines)


def _panel(name: str, data: str) -> Dataset:
    dataset = open_data(data)
    if not name.endswith("@"):
        return dataset
    whole = set(range(len(dataset.classes)))
    of = dataset.table.source.groupby(dataset.table.source).groups
    mixed = [source for source, rows in of.items() if source and whole <= {*dataset.labels[rows]}]
    return dataset.take(dataset.table.source.isin(mixed).to_numpy())


def _batches(test: Test) -> int:
    return max(1, -(-len(test.pixels.dataset) // BATCH))


def _named(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise SystemExit(f"'{text}': write NAME=VALUE")
    return name, value


if __name__ == "__main__":
    main()
