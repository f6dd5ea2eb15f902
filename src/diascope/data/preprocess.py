"""From an image of any size to the square at which a model works."""

from __future__ import annotations

from typing import Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diascope.settings import Settings

T = TypeVar("T", np.uint8, np.bool_)


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
        image = self._cropped(image)
        if image.shape == (size, size, self.channels):
            return image
        pixels = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
        if self.channels == 1:
            pixels = pixels.convert("L")
        square = pixels.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)
        result = np.asarray(square).reshape(size, size, -1)
        return np.broadcast_to(result, (size, size, self.channels))

    def mask(self, mask: NDArray[np.bool_], size: int) -> NDArray[np.bool_]:
        """Return (size, size) of `mask` (H, W): true where at least half the area is."""
        pixels = Image.fromarray(self._cropped(mask).astype(np.uint8) * 255)
        return np.asarray(pixels.resize((size, size), Image.Resampling.BOX)) >= 128

    def _cropped(self, pixels: NDArray[T]) -> NDArray[T]:
        """Return what is kept of `pixels` (H, W, ...), as contiguous memory."""
        if self.crop == "none":
            return np.ascontiguousarray(pixels)
        height, width = pixels.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        return np.ascontiguousarray(pixels[top : top + side, left : left + side])
