"""Held askew."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.evaluation.corruptions import CORRUPTIONS
from diascope.evaluation.corruptions.base import Corruption, Levels, either
from diascope.randomness import Noise


@CORRUPTIONS.register("rotation")
@dataclass(frozen=True, kw_only=True)
class Rotation(Corruption):
    """Turn about the centre; levels: the angle in degrees, to either side by lot.

    Bilinear. What turns in from outside is the image reflected at its edges: no black corners.
    """

    levels: Levels = (2.0, 4.0, 7.0, 11.0, 16.0)

    def _apply(self, x: Tensor, level: float, noise: Noise) -> Tensor:
        height, width = x.shape[-2:]
        v = ((torch.arange(height, device=x.device) + 0.5) - height / 2)[:, None]  # (H, 1)
        u = (torch.arange(width, device=x.device) + 0.5) - width / 2  # (W,)
        cos, sin = math.cos(math.radians(level)), math.sin(math.radians(level))
        sign = either(noise)[:, 0]  # (B, 1, 1)
        across = (cos * u + sign * (sin * v)) * (2 / width)
        down = (cos * v - sign * (sin * u)) * (2 / height)
        grid = torch.stack([across, down], -1)
        return F.grid_sample(x, grid, "bilinear", "reflection", align_corners=False)
