"""Exams for tests: small pictures in memory, nets whose behaviour is known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tests.nets import Linear

from diascope.data import Dataset, Pixels
from diascope.studies.exam import Exam

SIDE = 16


class Regions:
    """A reader of one further region: the leftmost column."""

    def image(self, path):
        raise AssertionError(path)

    def mask(self, path):
        region = np.zeros((SIDE, SIDE), bool)
        region[:, 0] = True
        return region

    def stamp(self, path):
        return path


def pixels_of(count=24, classes=("a", "b"), masks=True, channels=3, seed=0, **columns):
    """Return pictures from 90 to 165 of 255, class k brighter in the k-th part of the rows."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % len(classes)
    images = rng.integers(90, 160, (count, SIDE, SIDE, channels), np.uint8)
    regions = np.zeros((count, SIDE, SIDE), np.uint8)
    height = SIDE // len(classes)
    for i, k in enumerate(labels):
        part = slice(k * height + 1, (k + 1) * height - 1)
        images[i, part, 4:12] += 5
        regions[i, part, 4:12] = 1
    dataset = Dataset.of(
        "pictures",
        {
            "path": [f"{i}.png" for i in range(count)],
            "label": [classes[k] for k in labels],
            "group": [f"g{i // 2}" for i in range(count)],
            **columns,
        },
        classes,
        Regions(),
    )
    has = np.full(count, masks)
    return Pixels(dataset, images, regions if masks else None, has)


def line(scale=1.0, classes=2, seed=0, channels=3, noise=0.3):
    """Return a linear net that is right on most of the pictures: its weights know their places."""
    drawn = torch.Generator().manual_seed(seed)
    weight = noise * torch.randn(classes, channels, SIDE, SIDE, generator=drawn)
    height = SIDE // classes
    for k in range(classes):
        weight[k, :, k * height + 1 : (k + 1) * height - 1, 4:12] += 1
    centre = weight.sum((1, 2, 3)) * 0.49
    return Linear(scale * weight, -scale * centre).eval()


def exam_of(net, pixels, **options):
    """Return an exam of a net; what is told of is kept in `exam.heard`."""
    heard = []
    options = {"batch_size": 32, "tell": heard.append, **options}
    exam = Exam(
        net, pixels, pixels.dataset.classes, torch.device("cpu"), Path("nowhere"), **options
    )
    exam.heard = heard
    return exam
