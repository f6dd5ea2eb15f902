"""Filters of an image at its working size, applied in the order in which they are named.

A filter takes (H, W, C) float32 in [0, 255] and returns the like; what leaves the range is clipped
after it, and the last result is rounded to 8 bits. It moves no pixel: masks stay as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainSerializer, PlainValidator

from diascope.errors import UserError
from diascope.registry import Registry, to_settings

FILTERS = Registry("filter", __name__)


class Filter(Protocol):
    """A change of an image's values."""

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the filtered image, (H, W, C), of `image`, the same, in [0, 255]."""


def filtered(image: NDArray[np.uint8], filters: Sequence[Filter]) -> NDArray[np.uint8]:
    """Return `image` (H, W, C) after every filter; itself where there is none."""
    if not filters:
        return image
    values = image.astype(np.float32)
    for each in filters:
        values = each(values).clip(0, 255)
    return np.rint(values).astype(np.uint8)


def _built(given: Any) -> tuple[Filter, ...]:
    """Return filters of their names, settings, or themselves."""
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ValueError("write a list, such as [min-max, contrast]")
    try:
        return tuple(
            FILTERS.build(each) if isinstance(each, dict | str) else each for each in given
        )
    except UserError as error:
        raise ValueError(str(error)) from None


Filters = Annotated[
    tuple[Filter, ...],
    PlainValidator(_built),
    PlainSerializer(lambda filters: [to_settings(each) for each in filters], return_type=list),
]
