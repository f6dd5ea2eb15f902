"""Grey of more than 8 bits, made 8 bits without a loss of contrast that nobody sees.

Files of 16 bits often hold 8 to 14: white is then 255 to 16,383, and the image would come out
nearly black. Nothing in such a file says so. An image that uses less than a quarter of the range
is therefore refused, until `depth` says what white is.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from diascope.data.formats.base import Depth, FormatError, Levels

FAINT = 1 << 14


def to_8_bits(levels: Levels, depth: Depth = 16) -> NDArray[np.uint8]:
    """Return grey values (H, W) at 8 bits.

    depth: 16 makes 65,535 white (levels divided by 257, rounded down); 8, 10, 12 and 14 make 255,
    1,023, 4,095 and 16,383 white; "stretch" makes the darkest value of the image black and its
    lightest white. Raises `FormatError` for values outside the range, and at 16 for an image
    whose values stay under a quarter of it and of which levels would be lost.
    """
    low, high = int(levels.min()), int(levels.max())
    if depth == "stretch":
        return spread(levels, low, high)
    if low < 0 or high > 0xFFFF:
        raise FormatError("has grey values outside 16 bits: give depth=stretch for its own range")
    if depth != 16:
        white = (1 << depth) - 1
        if high > white:
            raise FormatError(f"has values up to {high:,}, over the {white:,} of depth={depth}")
        return spread(levels, 0, white)
    if high < FAINT:
        _refuse_faint(levels, high)
    return (levels // 257).astype(np.uint8)


def _refuse_faint(levels: Levels, high: int) -> None:
    """Raise `FormatError` where levels of an image of evidently fewer than 16 bits get lost."""
    left = high // 257 + 1
    if np.count_nonzero(np.bincount(levels.ravel(), minlength=1)) <= left:
        return
    bits = next(bits for bits in (8, 10, 12, 14) if high < 1 << bits)
    raise FormatError(
        f"has grey values up to {high:,} of 65,535, which leaves {left} of 256 levels: give "
        f"depth={bits} if white is {(1 << bits) - 1:,}, or depth=stretch for each image's own range"
    )


def spread(levels: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Return `levels` with `low` at 0 and `high` at 255, rounded; black where they are one."""
    if high <= low:
        return np.zeros(levels.shape, np.uint8)
    scaled = (levels.astype(np.float64) - low) * (255 / (high - low))
    return np.rint(scaled).clip(0, 255).astype(np.uint8)
