"""Out of focus."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diascope.evaluation.corruptions import CORRUPTIONS
from diascope.evaluation.corruptions.base import Corruption, Levels, heat_kernel
from diascope.randomness import Noise


@CORRUPTIONS.register("blur")
@dataclass(frozen=True, kw_only=True)
class Blur(Corruption):
    """Blur by a Gaussian; levels: its sigma as a share of the image's side.

    At 224 pixels sigma is 0.7, 1.3, 2.2, 3.4 and 5.4 pixels. Edges are reflected. The distance
    from the image grows with sigma for every image: each frequency is damped the more.
    """

    levels: Levels = (0.003, 0.006, 0.010, 0.015, 0.024)

    def _apply(self, x: Tensor, level: float, noise: Noise) -> Tensor:
        height, width = x.shape[-2:]
        sigma = level * max(height, width)
        down, across = (heat_kernel(n, sigma).to(x.device) for n in (height, width))
        return down @ (x @ across)
