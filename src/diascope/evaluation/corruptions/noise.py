"""Too little light for the sensor."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diascope.evaluation.corruptions import CORRUPTIONS
from diascope.evaluation.corruptions.base import Corruption, Levels
from diascope.randomness import Noise

DARK = 1 / 16  # of the variance at white, present without light


@CORRUPTIONS.register("noise")
@dataclass(frozen=True, kw_only=True)
class SensorNoise(Corruption):
    """Add the noise of counted light; levels: its standard deviation at white, at 224 pixels.

    Normal, with variance level^2 (x + 1/16) times (side / 224)^2: shot noise, which grows with
    the light, and the sensor's own. The light of the whole picture is what is fixed; at twice
    the side a pixel has a quarter of it and so twice the noise.
    """

    levels: Levels = (0.03, 0.06, 0.10, 0.15, 0.22)

    def _apply(self, x: Tensor, level: float, noise: Noise) -> Tensor:
        size = level * max(x.shape[-2:]) / 224
        drawn = noise.normal(x.shape[1:], stream=1)
        return (x + DARK).clamp_min_(0).sqrt_().mul_(drawn).mul_(size).add_(x)
