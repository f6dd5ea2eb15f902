"""The papers' figures from models of ours: one layout a call, written as one picture.

    python -m benchmarks.figures maps --run NAME=RUN ... --data DATA --out P1-5.png
    python -m benchmarks.figures baselines --run ... --data DATA --out P1-6.png
    python -m benchmarks.figures failures --run NAME=RUN --data DATA --out P1-9.png
    python -m benchmarks.figures attacked --run ... --data DATA --out P2-9.png
    python -m benchmarks.figures datasets --run A:NAME=RUN ... --data A=DATA ... --out P4-6.png
    python -m benchmarks.figures roc --run NAME=RUN ... --data PANEL=DATA ... --out P3-3.png

`maps` are figures 5, 7 and 8 of P1 and, where images have boxes, 2 of P3; `attacked` 9 to 14 of
P2. Images are drawn by hashed id among those that no model has seen; `failures` are the images
whose map has the least of its mass on the pathology.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from diascope.attacks import scale_eps
from diascope.attacks.base import attacks
from diascope.audit import open_subjects, unseen_pixels
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject
from diascope.data import Pixels, open_data
from diascope.evaluation import MassInside
from diascope.explain import explainers, rectify, render
from diascope.models import heads
from diascope.models.modes import exactly
from diascope.report import figures
from diascope.report.figures import Said, Shown, UnderAttack
from diascope.report.grid import save
from diascope.report.roc import Scored, roc_chart

BASELINES = ("uniform", "gaussian", "black", "blurred")


class Stage:
    """Models by name, and the images of one dataset that all of them are shown."""

    def __init__(self, runs: Sequence[str], data: str, args: argparse.Namespace) -> None:
        self.args = args
        named = [run.partition("=")[::2] for run in runs]
        self.subjects: dict[str, Subject] = {
            name: open_subjects([folder])[0] for name, folder in named
        }
        test = unseen_pixels(
            open_data(data), list(self.subjects.values()), AuditSettings(seed=args.seed)
        )
        self.pixels: Pixels = test.pixels
        self.classes = list(self.pixels.dataset.classes)

    def take(self, rows: np.ndarray) -> tuple[Tensor, Tensor, Shown]:
        """Return images, their labels, and how they are shown."""
        x, y = self.pixels.x(rows), self.pixels.y(rows)
        masks = self.pixels.m(rows).bool() if self.pixels.masks is not None else None
        labels = [self.classes[k] for k in y]
        return x, y, Shown(x, labels, masks, style=self.args.style, colours=self.args.colours)

    def drawn(self, count: int) -> np.ndarray:
        """Return rows, as many of each class as there is room for."""
        labels = self.pixels.y(np.arange(len(self.pixels.dataset))).numpy()
        usable = (
            self.pixels.has_mask if self.pixels.masks is not None else np.ones(len(labels), bool)
        )
        usable = usable if usable.any() else np.ones(len(labels), bool)
        lot = np.random.default_rng(self.args.seed)
        of = [lot.permutation(np.flatnonzero((labels == k) & usable)) for k in np.unique(labels)]
        turns = [rows[turn] for turn in range(max(map(len, of))) for rows in of if turn < len(rows)]
        return np.array(turns[:count])

    def explained(self, model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
        """Return raw maps of the true class."""
        explainer = explainers.build({"name": self.args.method, **settings})
        with exactly(model) as inner:
            return explainer(inner, x, y, generator=torch.Generator().manual_seed(self.args.seed))

    def shown(self, model: nn.Module, x: Tensor, y: Tensor, **settings: Any) -> Tensor:
        """Return maps as they are drawn."""
        rectification = explainers[self.args.method].rectification
        return render(self.explained(model, x, y, **settings), rectification)

    def said(self, model: nn.Module, x: Tensor, y: Tensor) -> list[Said]:
        """Return what a model makes of the images, and whether it is right."""
        probability, right = self.judged(model, x, y)
        values, guess = probability.max(1)
        return [
            Said(f"{self.classes[g]} {p:.2f}", bool(r))
            for g, p, r in zip(guess, values, right, strict=True)
        ]

    def judged(self, model: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return the probabilities (N, K) and which predictions are right."""
        with torch.no_grad(), exactly(model) as inner:
            parts = [inner(part) for part in x.split(64)]
        logits = torch.cat(parts)
        return heads.probabilities(logits), heads.is_correct(logits, y)


def maps(stage: Stage) -> Figure:
    """Return a row an image, a column a model."""
    x, y, shown = stage.take(stage.drawn(stage.args.images))
    models = {name: subject.model for name, subject in stage.subjects.items()}
    heats = {name: stage.shown(model, x, y) for name, model in models.items()}
    captions = {name: stage.said(model, x, y) for name, model in models.items()}
    return figures.maps_figure(shown, heats, captions=captions, title=stage.args.title)


def baselines(stage: Stage) -> Figure:
    """Return integrated gradients, a section a baseline."""
    stage.args.method = "integrated_gradients"
    x, y, shown = stage.take(stage.drawn(stage.args.images))
    sections = {
        baseline: {
            name: stage.shown(subject.model, x, y, baseline=baseline)
            for name, subject in stage.subjects.items()
        }
        for baseline in BASELINES
    }
    return figures.sectioned_figure(shown, sections, title=stage.args.title)


def failures(stage: Stage) -> Figure:
    """Return the images whose maps have least on the pathology, less its chance level."""
    (subject,) = stage.subjects.values()
    rows = stage.drawn(300)
    x, y, shown = stage.take(rows)
    if shown.masks is None:
        raise SystemExit("failures are chosen by masks; these images have none")
    heat = rectify(
        stage.explained(subject.model, x, y), explainers[stage.args.method].rectification
    )
    measure = MassInside()
    inside, chance = measure(heat, shown.masks), measure.chance(shown.masks)
    worst = (inside - chance).nan_to_num(torch.inf).argsort()[: stage.args.images]
    x, y, shown = stage.take(rows[worst.numpy()])
    said = [
        Said(f"inside {inside[i]:.2f}, chance {chance[i]:.2f}\n{each.words}", each.right)
        for each, i in zip(stage.said(subject.model, x, y), worst, strict=True)
    ]
    drawn = stage.shown(subject.model, x, y)
    return figures.gallery(shown, drawn, captions=said, across=3, title=stage.args.title)


def attacked(stage: Stage) -> Figure:
    """Return each model's image, perturbation, attacked image and both maps."""
    x, y, shown = stage.take(stage.drawn(stage.args.images))
    eps = scale_eps(stage.args.eps, x.shape[-1], rule="root")
    attack = attacks.build({"name": "pgd", "norm": "l2", "eps": eps, "steps": 20})
    views = {}
    for name, subject in stage.subjects.items():
        model = subject.model
        with exactly(model) as inner:
            x_adv = attack(inner, x, y, generator=torch.Generator().manual_seed(stage.args.seed))
        before, after = (stage.shown(model, z, y) for z in (x, x_adv))
        views[name] = UnderAttack(
            x_adv, before, after, stage.said(model, x, y), stage.said(model, x_adv, y)
        )
    return figures.attacked_figure(shown, views, title=stage.args.title)


def datasets(stages: Mapping[str, Stage]) -> Figure:
    """Return several datasets beside each other."""
    parts = {}
    for name, stage in stages.items():
        x, y, shown = stage.take(stage.drawn(stage.args.images))
        parts[name] = (
            shown,
            {each: stage.shown(of.model, x, y) for each, of in stage.subjects.items()},
        )
    return figures.side_by_side_figure(parts)


def roc(stages: Mapping[str, Stage]) -> Figure:
    """Return a panel a dataset, with a curve a model; the last class is the positive one."""
    panels: dict[str, dict[str, Scored]] = {}
    for panel, stage in stages.items():
        rows = np.arange(len(stage.pixels.dataset))
        x, y, groups = stage.pixels.x(rows), stage.pixels.y(rows), stage.pixels.dataset.groups
        panels[panel] = {
            name: Scored(
                stage.judged(of.model, x, y)[0][:, -1], y == len(stage.classes) - 1, groups
            )
            for name, of in stage.subjects.items()
        }
    return roc_chart(panels)


ONE = {"maps": maps, "baselines": baselines, "failures": failures, "attacked": attacked}
SEVERAL = {"datasets": datasets, "roc": roc}


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("layout", choices=[*ONE, *SEVERAL])
    options.add_argument("--run", action="append", required=True, metavar="[DATA:]NAME=RUN")
    options.add_argument("--data", action="append", required=True, metavar="[NAME=]DATA")
    options.add_argument("--out", type=Path, required=True)
    options.add_argument("--method", default="gradient", choices=explainers.names())
    options.add_argument("--images", type=int, default=5)
    options.add_argument("--eps", type=float, default=1.0, help="L2, at 224 pixels")
    options.add_argument("--style", default="map", choices=["map", "overlay", "grey overlay"])
    options.add_argument("--colours", default="blue")
    options.add_argument("--title", default="")
    options.add_argument("--seed", type=int, default=0)
    args = options.parse_args(arguments)
    if args.layout in ONE:
        figure = ONE[args.layout](Stage(args.run, args.data[0], args))
    else:
        named = dict(each.split("=", 1) for each in args.data)
        figure = SEVERAL[args.layout](
            {name: Stage(_of(args.run, name), data, args) for name, data in named.items()}
        )
    print(save(figure, args.out))


def _of(runs: Sequence[str], name: str) -> list[str]:
    """Return the runs of one dataset, or those that belong to all."""
    own = [run.removeprefix(f"{name}:") for run in runs if run.startswith(f"{name}:")]
    return own or [run for run in runs if ":" not in run.partition("=")[0]]


if __name__ == "__main__":
    main()
