"""P2's contrast filter: an image less its own blur, amplified."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from diascope.data.filters import FILTERS

_NOTHING = 1e-8  # of 255, far below what float32 tells


@FILTERS.register("contrast")
@dataclass(frozen=True)
class Contrast:
    """x' = gain * (x - blur(x)) + offset, clipped to [0, 255] (P2: Wasserman 2022, 3.2).

    `sigma` of the Gaussian blur is in pixels of the working image, as P2 resizes first by its
    text. With `reference` it is in pixels of an image with that side, and shrinks in proportion:
    1024 comes to the filter of a 1024x1024 X-ray before it is resized. Ours: the image is
    reflected at its edges, the edge pixel repeated.
    """

    sigma: float = 20.0
    gain: float = 4.0
    offset: float = 128.0
    reference: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ValueError(f"sigma={self.sigma}: give more than 0 pixels")
        if self.reference is not None and self.reference < 1:
            raise ValueError(f"reference={self.reference}: give a side in pixels")

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the filtered `image` (H, W, C)."""
        height = image.shape[0]
        sigma = self.sigma if self.reference is None else self.sigma * height / self.reference
        return np.float32(self.gain) * (image - blur(image, sigma)) + np.float32(self.offset)


def blur(image: NDArray[np.float32], sigma: float) -> NDArray[np.float32]:
    """Return `image` (H, W, C) convolved with a Gaussian, reflected at its edges.

    Such a blur is diagonal in the cosines of the DCT-II, and shrinks all but the longest waves to
    nothing: 26 of 224 for sigma 20. So it is four small matrix products a channel, exact to
    float32.
    """
    rows, row_gain = _waves(image.shape[0], sigma)  # (R, H), (R,)
    columns, column_gain = _waves(image.shape[1], sigma)  # (S, W), (S,)
    result = np.empty_like(image)
    for channel in range(image.shape[2]):
        waves = rows @ np.ascontiguousarray(image[..., channel]) @ columns.T  # (R, S)
        waves *= row_gain[:, None] * column_gain
        result[..., channel] = rows.T @ waves @ columns
    return result


@lru_cache(maxsize=64)
def _waves(count: int, sigma: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the orthonormal cosines (R, count) that the blur leaves, and what it leaves (R,)."""
    distance = np.arange(1, math.ceil(8 * sigma) + 1)
    weight = np.exp(-(distance**2) / (2 * sigma**2))
    frequency = np.pi * np.arange(count) / count  # (count,)
    response = 1 + 2 * np.cos(np.outer(frequency, distance)) @ weight
    response /= response[0]
    kept = np.abs(response) > _NOTHING
    waves = np.cos(np.outer(frequency[kept], np.arange(count) + 0.5)) * math.sqrt(2 / count)
    waves[0] /= math.sqrt(2)
    return waves.astype(np.float32), response[kept].astype(np.float32)
