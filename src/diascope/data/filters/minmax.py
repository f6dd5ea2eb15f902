"""Stretching each image to the whole range."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from diascope.data.filters import FILTERS


@FILTERS.register("min-max")
@dataclass(frozen=True)
class MinMax:
    """The darkest value of an image becomes 0, the brightest 255 (P2: Wasserman 2022, 3.2).

    Channels are stretched together, so that hues stay. An image of one value stays as it is.
    """

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return `image` (H, W, C) stretched to [0, 255]."""
        low, high = image.min(), image.max()
        return image if low == high else (image - low) * (255 / (high - low))
