"""Too much light, or too little."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diascope.evaluation.corruptions import CORRUPTIONS
from diascope.evaluation.corruptions.base import Corruption, Levels, either
from diascope.randomness import Noise

GAMMA = 2.2  # of a stored picture: value = light ** (1 / GAMMA)


@CORRUPTIONS.register("exposure")
@dataclass(frozen=True, kw_only=True)
class Exposure(Corruption):
    """Expose too long or too short; levels: by how many stops (a stop doubles the light).

    Half of the images, drawn by lot, get brighter and the others darker: x 2^(+-stops / 2.2),
    cut off at white.
    """

    levels: Levels = (0.25, 0.5, 0.8, 1.2, 1.7)

    def _apply(self, x: Tensor, level: float, noise: Noise) -> Tensor:
        return x * 2 ** (either(noise) * (level / GAMMA))
