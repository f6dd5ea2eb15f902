"""Resampling stacks of small images, each in a box of its own, as products of matrices."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def averaged(images: NDArray[np.generic], boxes: Floats, side: int) -> Floats:
    """Return the mean of `images` (B, H, W) over the cells of a grid: (B, side, side).

    The grid divides each image's box (B, 4): top, left, bottom, right, in fractions of the image.
    """
    rows = _overlaps(boxes[:, 0], boxes[:, 2], images.shape[1], side)
    columns = _overlaps(boxes[:, 1], boxes[:, 3], images.shape[2], side)
    result: Floats = rows @ images.astype(np.float32) @ columns.transpose(0, 2, 1)
    return result


def whole(count: int) -> Floats:
    """Return the boxes (count, 4) that hold all of each image."""
    return np.broadcast_to(np.array([0, 0, 1, 1], np.float32), (count, 4))


def _overlaps(start: Floats, end: Floats, length: int, side: int) -> Floats:
    """Return the share of each pixel in each cell, (B, side, length); a cell's shares sum to 1."""
    step = (end - start) / side
    low = (start[:, None] + np.arange(side) * step[:, None]) * length  # (B, side)
    high = low + (step * length)[:, None]
    pixel = np.arange(length)
    share = np.minimum(high[..., None], pixel + 1) - np.maximum(low[..., None], pixel)
    share = np.clip(share, 0, None)
    found: Floats = (share / share.sum(-1, keepdims=True)).astype(np.float32)
    return found
