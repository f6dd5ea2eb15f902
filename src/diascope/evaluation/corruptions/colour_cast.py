"""The white balance of another lamp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diascope.evaluation.corruptions import CORRUPTIONS
from diascope.evaluation.corruptions.base import Corruption, Levels, either
from diascope.randomness import Noise


@CORRUPTIONS.register("colour_cast")
@dataclass(frozen=True, kw_only=True)
class ColourCast(Corruption):
    """Warm or cool the light; levels: by how much red gains and blue loses, as a share.

    Half of the images, drawn by lot, get redder (red times 1 + share, blue over it), the others
    bluer; green stays. An image of one channel comes back unchanged: it has no colour to shift.
    """

    levels: Levels = (0.04, 0.08, 0.14, 0.22, 0.32)
    needs_colour: ClassVar[bool] = True

    def _apply(self, x: Tensor, level: float, noise: Noise) -> Tensor:
        power = torch.tensor([1.0, 0.0, -1.0], device=x.device).view(1, 3, 1, 1)
        return x * (1 + level) ** (power * either(noise))
