"""A task whose answers are known: a bright square on the left or on the right."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from diascope.data import Dataset
from diascope.models import create_model

SIDE, COUNT = 16, 60
TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


class Squares:
    """A reader that draws image `i`: its square on the left for even `i`."""

    def _place(self, path):
        i = int(path.removesuffix(".mask"))
        return slice(2, 6) if i % 2 == 0 else slice(10, 14)

    def image(self, path):
        image = np.random.default_rng(int(path)).integers(60, 100, (SIDE, SIDE, 3), np.uint8)
        image[6:10, self._place(path)] = 200
        return image

    def mask(self, path):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[6:10, self._place(path)] = True
        return mask

    def stamp(self, path):
        return path


class Eyes(nn.Module):
    """Logits from the mean brightness of each square's place: it looks where it should."""

    def __init__(self, sharpness: float, background: float = 0.0) -> None:
        super().__init__()
        weight = torch.full((2, 3, SIDE, SIDE), background)
        weight[1] *= -1
        weight[0, :, 6:10, 2:6] = weight[1, :, 6:10, 10:14] = sharpness / 48
        weight[0, :, 6:10, 10:14] = weight[1, :, 6:10, 2:6] = -sharpness / 48
        self.weight = nn.Parameter(weight)
        self.spec = create_model("resnet18", 2, **TINY).spec
        self.card = {
            "classes": ["left", "right"],
            "size": SIDE,
            "preprocess": {"crop": "none", "channels": 3},
        }

    def forward(self, x):
        return torch.einsum("bchw,kchw->bk", x, self.weight)


def squares(count: int = COUNT) -> Dataset:
    numbers = range(count)
    return Dataset.of(
        "squares",
        {
            "path": [str(i) for i in numbers],
            "label": ["left" if i % 2 == 0 else "right" for i in numbers],
            "group": [f"g{i // 4}" for i in numbers],
            "mask": [f"{i}.mask" if i >= 4 else "" for i in numbers],
        },
        ["left", "right"],
        Squares(),
    )
