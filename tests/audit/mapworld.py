"""A world whose truth is known: an even patch tells the class, and every edge is elsewhere."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch
from torch import nn

from diascope.audit.bench import Bench
from diascope.audit.parts import Interface
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject
from diascope.data import Dataset, Pixels
from diascope.evaluation import predict

SIDE, COUNT = 32, 20
PATCH = (slice(11, 21), slice(9, 19))  # of the mask: it covers the middle, and some of its left
EFFORT = {"faithfulness_images": 0, "steadiness_images": 8, "sanity_images": 8}
CARD = {"classes": ["dark", "light"], "size": SIDE, "preprocess": {}, "seed": 0, "model": {}}


def pixels(count: int = COUNT) -> Pixels:
    """Images whose patch rises evenly to dark or light; noise and a fence around say nothing."""
    rng = np.random.default_rng(0)
    images = rng.integers(88, 168, (count, SIDE, SIDE, 3)).astype(np.uint8)
    bump = np.outer(*(np.hanning(s.stop - s.start + 2)[1:-1] for s in PATCH))[..., None]
    for i, image in enumerate(images):
        image[PATCH] = 128 + (40 if i % 2 else -40) * bump
        image[:, 22::4] = 255
        image[:, 24::4] = 0
    masks = np.zeros((count, SIDE, SIDE), np.uint8)
    masks[:, *PATCH] = 1
    columns = {
        "path": [str(i) for i in range(count)],
        "label": [CARD["classes"][i % 2] for i in range(count)],
        "mask": [f"{i}.mask" for i in range(count)],
    }
    dataset = Dataset.of("patches", columns, CARD["classes"], None)  # type: ignore[arg-type]
    return Pixels(dataset, images, masks, np.ones(count, bool))


class Seer(nn.Module):
    """Tells dark from light by the patch, or by whatever its weights (H, W) say."""

    def __init__(self, where: torch.Tensor | None = None, scale: float = 40.0) -> None:
        super().__init__()
        weight = torch.zeros(SIDE, SIDE)
        if where is None:
            weight[PATCH] = 1
        else:
            weight += where
        self.weight = nn.Parameter(scale * weight / weight.sum())

    def forward(self, x):
        light = torch.einsum("bchw,hw->b", x - 0.5, self.weight) / x.shape[1]
        return torch.stack([-light, light], 1)


class Rippled(Seer):
    """The same answers, but for ripples too fine to see, whose slopes drown the gradient."""

    def forward(self, x):
        ripple = 1e-4 * torch.sin(1000 * x).sum((1, 2, 3))
        return super().forward(x) + torch.stack([-ripple, ripple], 1)


class Net(nn.Module):
    """A small convolutional net as it was drawn; it and its copies count the passes of images."""

    passes: ClassVar[list[float]] = [0.0]

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, stride=2, padding=1)
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        self.passes[0] += len(x) * (3 if torch.is_grad_enabled() else 1)
        x = torch.relu(self.conv1(x))
        return self.fc(torch.relu(self.conv2(x)).mean((2, 3)))


def bench(model: nn.Module, *, gradients: bool = True, batch_size: int = 64, **options) -> Bench:
    """A bench with that model on it; `options` are fields of the bench, or `effort`'s numbers."""
    fields = {k: options.pop(k) for k in ("others", "cards", "tell") if k in options}
    card = options.pop("card", CARD)
    interface = None
    if not gradients:
        interface = Interface("callable", False, "probabilities", 3, SIDE, "RGB", True)
    settings = AuditSettings(replicates=100, epsilons=(0.5,), effort={**EFFORT, **options})
    world = pixels()
    return Bench(
        subject=Subject("m", model, None, card, interface),
        model=model,
        pixels=world,
        settings=settings,
        effort=settings.build_effort(),
        device=torch.device("cpu"),
        table=predict(model, world),
        batch_size=batch_size,
        **fields,
    )
