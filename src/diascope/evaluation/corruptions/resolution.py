"""A camera with fewer pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from diascope.evaluation.corruptions import CORRUPTIONS
from diascope.evaluation.corruptions.base import Corruption, Levels
from diascope.randomness import Noise


@CORRUPTIONS.register("resolution")
@dataclass(frozen=True, kw_only=True)
class Resolution(Corruption):
    """Make smaller and larger again; levels: the side left over, as a share of the image's.

    Reduced by the triangle filter (which takes the mean of what falls together) and enlarged
    bilinearly, as a viewer does. At 224 pixels 157, 112, 78, 54 and 36 pixels are left; of a small
    image, whose every pixel counts, the same share costs more.
    """

    levels: Levels = (0.70, 0.50, 0.35, 0.24, 0.16)

    def _apply(self, x: Tensor, level: float, noise: Noise) -> Tensor:
        size = [int(n) for n in x.shape[-2:]]
        small = [max(1, round(level * n)) for n in size]
        few = F.interpolate(x, small, mode="bilinear", antialias=True, align_corners=False)
        return F.interpolate(few, size, mode="bilinear", align_corners=False)
