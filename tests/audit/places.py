"""The task of the everyday checks, and nets that solve it.

A square on the left or on the right of the picture. A net that looks at its brightness is right
whatever the lamp; one that looks at the colour of the background is right by a shortcut.
"""

from __future__ import annotations

import numpy as np
import torch
from tests.audit.benches import pixels_of
from torch import nn

SIDE = 16


CLASSES = ["left", "right"]


def squares(count=60, seed=0, warm=0.03, channels=3, **columns):
    """Squares on the left of even images; the background of these is a little redder."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    x = 0.45 + 0.02 * rng.standard_normal((count, SIDE, SIDE, channels))
    if channels == 3:
        x[..., 0] += (warm * (1 - 2 * labels))[:, None, None]
        x[..., 2] -= (warm * (1 - 2 * labels))[:, None, None]
    for i, label in enumerate(labels):
        x[i, 6:10, 10 * label + 1 : 10 * label + 5] += 0.3
    images = np.rint(x.clip(0, 1) * 255).astype(np.uint8)
    return pixels_of(images, labels, CLASSES, **columns)


class Place(nn.Module):
    """Logits from which side is brighter."""

    def __init__(self, gain=40.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x):
        grey = x.mean(1)
        score = self.gain * (
            grey[:, :, : SIDE // 2].mean((1, 2)) - grey[:, :, SIDE // 2 :].mean((1, 2))
        )
        return torch.stack([score, -score], 1)


class Colour(Place):
    """Logits from whether red exceeds blue."""

    def forward(self, x):
        score = self.gain * (x[:, 0] - x[:, 2]).mean((1, 2))
        return torch.stack([score, -score], 1)


class Single(Place):
    """The same as one logit."""

    def forward(self, x):
        return super().forward(x)[:, 1:] * 2


def noisy(count=120, wrong=0.3):
    """Squares of which so many bear the label of the other side."""
    pixels = squares(count)
    labels = pixels.dataset.labels.copy()
    flipped = np.random.default_rng(1).random(count) < wrong
    labels[flipped] = 1 - labels[flipped]
    return pixels_of(pixels.images, labels, CLASSES)


def of_two_clinics(wrong, count=200, other=0.0, groups=None):
    """Squares of clinics a and b by turns of two; in b so many labels are those of the other."""
    pixels = squares(count)
    sources = np.array(["b" if i // 2 % 2 else "a" for i in range(count)])
    labels = pixels.dataset.labels.copy()
    rng = np.random.default_rng(0)
    share = np.where(sources == "b", wrong, other)
    flipped = rng.random(count) < share
    labels[flipped] = 1 - labels[flipped]
    columns = {"source": sources.tolist(), "sex": ["f" if i % 3 else "m" for i in range(count)]}
    columns["age"] = [str(20 + i % 50) if i % 7 else "" for i in range(count)]
    columns |= {"group": groups} if groups else {}
    return pixels_of(pixels.images, labels, CLASSES, **columns)
