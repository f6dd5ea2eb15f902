"""Flat or hard."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.evaluation.corruptions import CORRUPTIONS
from diascope.evaluation.corruptions.base import Corruption, Levels, either
from diascope.randomness import Noise


@CORRUPTIONS.register("contrast")
@dataclass(frozen=True, kw_only=True)
class Contrast(Corruption):
    """Stretch or squeeze values about the image's mean; levels: the factor, or one over it.

    Half of the images, drawn by lot, are multiplied by the factor, the others divided by it, and
    cut off at black and white.
    """

    levels: Levels = (0.85, 0.70, 0.55, 0.42, 0.30)

    def _apply(self, x: Tensor, level: float, noise: Noise) -> Tensor:
        mean = x.mean((1, 2, 3), keepdim=True)
        factor = torch.where(either(noise) > 0, level, 1 / level)
        return (x - mean).mul_(factor).add_(mean)
