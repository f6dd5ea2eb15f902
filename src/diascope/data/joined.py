"""Images added to others: one set of pixels made of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from diascope.data.pixels import Pixels, Rows


class Stacked:
    """Arrays (N, ...) of one shape and type end to end; rows are gathered from where they lie."""

    def __init__(self, arrays: Sequence[NDArray[np.uint8] | Rows]) -> None:
        self.arrays = [array for array in arrays if len(array)] or list(arrays[:1])
        self.ends = np.cumsum([len(array) for array in self.arrays])
        shapes = {array.shape[1:] for array in self.arrays}
        if len(shapes) > 1:
            raise ValueError(f"arrays of shapes {sorted(shapes)} do not stack")

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the whole."""
        return int(self.ends[-1]), *self.arrays[0].shape[1:]

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """The type of the arrays."""
        return self.arrays[0].dtype

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Return the rows at integer positions, (B, ...)."""
        rows = np.asarray(rows)
        if not rows.ndim:
            return self[rows[None]][0]  # type: ignore[no-any-return]
        found = np.empty((len(rows), *self.shape[1:]), self.dtype)
        places = np.searchsorted(self.ends, rows, side="right")
        for place in np.unique(places):
            here = places == place
            first = self.ends[place] - len(self.arrays[place])
            found[here] = self.arrays[place][rows[here] - first]
        return found


def with_copies(
    pixels: Pixels,
    copies: Sequence[NDArray[np.uint8]],
    of: NDArray[np.int64],
    names: Sequence[str],
) -> Pixels:
    """Return `pixels` and after them changed copies of some of their images.

    copies: arrays (n, H, W, C) that are M images in all, left where they lie. of (M,): the row
    that each is a copy of. names (M): what is appended to its path, so that it has an id, and with
    that random numbers, of its own. A copy has the label, mask and group of its image; an image
    without a group becomes one with its copies.
    """
    if not len(of):
        return pixels
    count = len(pixels)
    whole = pixels.take(np.concatenate([np.arange(count), of]))
    table = whole.dataset.table
    own = "path:" + table["path"]
    groups = table["group"].where(table["group"] != "", own)
    table = table.assign(group=groups, path=table["path"] + ([""] * count + list(names)))
    stacked = cast("NDArray[np.uint8]", Stacked([pixels.images, *copies]))
    return replace(
        whole,
        dataset=replace(whole.dataset, table=table),
        images=Rows(stacked, np.arange(len(table))),
        skipped=pixels.skipped,
    )
