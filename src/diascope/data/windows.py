"""Which part of an image is kept: a rectangle, of the image and of its regions alike."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T", np.uint8, np.bool_)


class Window(NamedTuple):
    """A rectangle in pixels of an image; it may reach beyond its edges."""

    top: int
    left: int
    height: int
    width: int

    def cut(self, pixels: NDArray[T]) -> NDArray[T]:
        """Return the window of `pixels` (H, W, ...), contiguous; 0 beyond their edges."""
        height, width = pixels.shape[:2]
        top, left = max(self.top, 0), max(self.left, 0)
        bottom, right = min(self.top + self.height, height), min(self.left + self.width, width)
        inside = pixels[top:bottom, left:right]
        if inside.shape[:2] == (self.height, self.width):
            return np.ascontiguousarray(inside)
        result = np.zeros((self.height, self.width, *pixels.shape[2:]), pixels.dtype)
        result[top - self.top : bottom - self.top, left - self.left : right - self.left] = inside
        return result


def centre_square(height: int, width: int) -> Window:
    """Return the largest square about the centre of an image of `height` x `width`."""
    side = min(height, width)
    return Window((height - side) // 2, (width - side) // 2, side, side)
