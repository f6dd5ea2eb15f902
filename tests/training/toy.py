"""Small problems on which training can be watched."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from diascope.data import Dataset, Pixels

CLASSES = ("dark", "light", "red")


class NoReader:
    def image(self, path: str) -> np.ndarray:
        raise AssertionError("pixels are there already")

    mask = image

    def stamp(self, path: str) -> str:
        return ""


def toy_pixels(count: int = 48, size: int = 8, seed: int = 0, name: str = "toy") -> Pixels:
    """Noisy images of three classes: dark, light, red; every tenth has another's label."""
    draw = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    images = draw.integers(0, 120, (count, size, size, 3))
    images[labels == 1] += 60
    images[labels == 2, :, :, 0] += 100
    shown = np.where(np.arange(count) % 10 == 9, (labels + 1) % 3, labels)
    columns = {
        "path": [f"{seed}-{i:04d}.png" for i in range(count)],
        "label": [CLASSES[k] for k in shown],
    }
    dataset = Dataset.of(name, columns, CLASSES, NoReader())
    return Pixels(dataset, images.clip(0, 255).astype(np.uint8), None, np.zeros(count, bool))


def toy_net(seed: int = 0, dropout: float = 0.2) -> nn.Module:
    """A net with convolution, batch-norm and dropout, in train mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(96, 3),
        )


def same_weights(a: nn.Module | dict, b: nn.Module | dict) -> bool:
    """Tell whether two models have the same tensors, bit for bit."""
    first, second = (m.state_dict() if isinstance(m, nn.Module) else m for m in (a, b))
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


TIMES = ["seconds", "seconds_data", "seconds_update", "seconds_attack"]
TIMES += ["seconds_validation", "images_per_second"]
