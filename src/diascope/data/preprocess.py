"""From an image of any size to the square at which a model works."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diascope.settings import Settings

Box = tuple[float, float, float, float]


class Preprocess(Settings):
    """How an image becomes a square: what is cut out, and the number of channels.

    `crop`: "centre-square" cuts out the largest square about the centre (P1's centre 450x450
    of 600x450); "none" keeps everything and changes the aspect ratio. `channels`: 3 repeats
    grey images, 1 turns colour into luma (ITU-R 601).
    """

    crop: Literal["centre-square", "none"] = "centre-square"
    channels: Literal[1, 3] = 3

    def image(self, image: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
        """Return (size, size, channels) of `image` (H, W, 1 or 3), antialiased bicubic."""
        pixels = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        if self.channels == 1:
            pixels = pixels.convert("L")
        box = self._box(image.shape[0], image.shape[1])
        square = pixels.resize((size, size), Image.Resampling.BICUBIC, box, reducing_gap=3.0)
        result = np.asarray(square).reshape(size, size, -1)
        return np.broadcast_to(result, (size, size, self.channels))

    def mask(self, mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
        """Return (size, size) of `mask` (H, W): true where at least half the area is."""
        pixels = Image.fromarray(mask.astype(np.uint8) * 255)
        box = self._box(mask.shape[0], mask.shape[1])
        return np.asarray(pixels.resize((size, size), Image.Resampling.BOX, box)) >= 128

    def _box(self, height: int, width: int) -> Box:
        """Return left, upper, right, lower of what is kept."""
        if self.crop == "none":
            return 0, 0, width, height
        side = min(height, width)
        left, upper = (width - side) / 2, (height - side) / 2
        return left, upper, left + side, upper + side
