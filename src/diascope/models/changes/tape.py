"""What is known of a net at some points, for the changes around them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


class Tape:
    """What those operations of a net that are not linear took in and gave, in their order.

    entries: of a rectifier what `rules.of_rectifier` gives, of any other its changing arguments and
    its result, in float32; (B, ...) each. pooled: whether the net begins with a max-pooling, of
    which, then the first entry, the result alone is kept, and to which go the maps themselves, not
    their change. count: of images, B.
    """

    def __init__(
        self, count: int, entries: Iterable[tuple[Tensor, ...]] = (), pooled: bool = False
    ) -> None:
        self.count, self.entries, self.pooled = count, list(entries), pooled

    def take(self, rows: Tensor) -> Tape:
        """Return what is known of the images in places `rows` (b,)."""
        entries = [tuple(kept[rows] for kept in entry) for entry in self.entries]
        return Tape(len(rows), entries, self.pooled)

    def put(self, rows: Tensor, part: Tape) -> None:
        """Write what is known of images into the places `rows`."""
        for entry, new in zip(self.entries, part.entries, strict=True):
            for kept, values in zip(entry, new, strict=True):
                kept[rows] = values

    @property
    def nbytes(self) -> int:
        """How much memory it takes."""
        return sum(kept.nbytes for entry in self.entries for kept in entry)

    @property
    def is_rectified(self) -> bool:
        """Whether most of the maps go through rectifiers; the pooling at the beginning aside."""
        sizes = {True: 0, False: 0}
        for entry in self.entries[self.pooled :]:
            sizes[entry[0].dtype == torch.bfloat16] += entry[0].numel()
        return sizes[True] >= sizes[False]
