"""Is a planted shortcut found? The share of a model's maps on the sticker, and their picture.

RUN was trained in hospital a of the phantom, where a sticker in a corner tells the class nearly
always; DATA is the phantom it was trained on. CLEAN is a run trained without stickers.

    python -m benchmarks.shortcut RUN CLEAN --data DATA --out PICTURE.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diascope.audit import open_subjects, unseen_pixels
from diascope.audit.settings import AuditSettings
from diascope.data import load_region, open_data
from diascope.evaluation import MassInside, bootstrap_mean
from diascope.explain import explainers, rectify, render
from diascope.models import heads
from diascope.models.modes import exactly
from diascope.report.figures import Said, Shown, maps_figure
from diascope.report.grid import save


def main(arguments: Sequence[str] | None = None) -> None:
    options = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    options.add_argument("runs", nargs=2, metavar="RUN")
    options.add_argument("--data", required=True)
    options.add_argument("--images", type=int, default=300)
    options.add_argument("--shown", type=int, default=6)
    options.add_argument("--method", default="gradient")
    options.add_argument("--out", type=Path, required=True)
    args = options.parse_args(arguments)
    subjects = [open_subjects([run])[0] for run in args.runs]
    test = unseen_pixels(open_data(args.data), subjects, AuditSettings(images=args.images))
    pixels = test.pixels
    rows = np.arange(len(pixels.dataset))
    x, y, lesion = pixels.x(rows), pixels.y(rows), pixels.m(rows)
    sticker = torch.as_tensor(load_region(pixels.dataset, "shortcut", pixels.size)).bool()
    explainer, groups = explainers.build(args.method), pixels.dataset.groups
    heats, captions, shown = {}, {}, _drawn(y, args.shown)
    for subject, name in zip(subjects, ("with stickers", "without"), strict=True):
        raw = explainer(subject.model, x, y)
        heat = rectify(raw, explainer.rectification)
        with torch.no_grad(), exactly(subject.model) as inner:
            logits = inner(x)
        right = heads.is_correct(logits, y)
        guess = heads.predictions(logits)
        heats[name] = render(raw, explainer.rectification)[shown]
        captions[name] = [
            Said(subject.card["classes"][g], bool(r))
            for g, r in zip(guess[shown], right[shown], strict=True)
        ]
        print(f"trained {name}: accuracy {bootstrap_mean(right.numpy(), groups)}")
        for what, region in (("sticker", sticker), ("lesion", lesion)):
            share, chance = MassInside()(heat, region), MassInside().chance(region)
            print(
                f"  mass on the {what}: {bootstrap_mean(share.numpy(), groups)}, "
                f"chance {bootstrap_mean(chance.numpy(), groups)}"
            )
            for k in y.unique().tolist():
                of = (y == k).numpy()
                value = bootstrap_mean(share.numpy()[of], groups[of])
                print(f"    of {of.sum()} images of {pixels.dataset.classes[k]}: {value}")
    labels = [pixels.dataset.classes[k] for k in y[shown]]
    figure = maps_figure(Shown(x[shown], labels, sticker[shown]), heats, captions=captions)
    save(figure, args.out)


def _drawn(y: Tensor, count: int) -> Tensor:
    """Return the first images, as many of each class as there is room for, class by class."""
    each = -(-count // len(y.unique()))
    rows = [torch.nonzero(y == k)[:each, 0] for k in y.unique()]
    return torch.cat(rows)[:count]


if __name__ == "__main__":
    main()
