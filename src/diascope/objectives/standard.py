"""Standard training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack
from diascope.models.heads import cross_entropy
from diascope.objectives.base import objectives


@objectives.register("standard")
@dataclass(frozen=True, kw_only=True)
class Standard:
    """The cross-entropy of the images as they are: CE(x, y) (METHODS: ST, NT).

    label_smoothing: the share of the target spread evenly over the classes. One forward and one
    backward pass a step.
    """

    attack: ClassVar[Attack | None] = None
    label_smoothing: float = 0.0

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
        class_weight: Tensor | None = None,
    ) -> Tensor:
        """Return the mean cross-entropy of images (B, C, H, W) in [0, 1] and labels."""
        smoothing = self.label_smoothing
        return cross_entropy(model(x), y, weight=class_weight, label_smoothing=smoothing).mean()
