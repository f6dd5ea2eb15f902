"""Images with a part covered, and the stem's maps of them."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.explain.covered.images import Covered, Windows
from diascope.models.stem import Stem


class CoveredMaps(Covered):
    """Images with a part covered; of the stem's maps only what lies under it is computed again.

    The images come in rising order: what is known of the last one is kept.
    """

    def __init__(
        self, stem: Stem, x: Tensor, fill: Tensor, windows: tuple[Windows, Windows]
    ) -> None:
        super().__init__(nn.Identity(), x, fill, windows)
        self.stem, self._last = stem, -1
        self._turn(0)
        sides = self._maps.shape[2:]
        down, across = (Under(stem.conv, n, windows[n], sides[n]) for n in range(2))
        self.under = down, across

    def whole(self, image: Tensor) -> Tensor:
        """Return the logits (n, K) of images of which nothing is covered."""
        out = like(self._maps, len(image))
        for maps, x in zip(out, self.x[image], strict=True):
            maps.copy_(self.stem.maps(x[None])[0])
        return self.stem.rest(out)

    def logits(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the logits (n, K) of `images`."""
        return self.stem.rest(self.maps(image, row, column))

    def maps(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the stem's maps (n, c, h, w) of `images`."""
        down, across = self.under
        places = list(zip(image.tolist(), row.tolist(), column.tolist(), strict=True))
        seen, out = self._unseen(len(places)), like(self._maps, len(places))
        for whole, part, (i, r, c) in zip(out, seen, places, strict=True):
            self._turn(i)
            self._see(part, r, c)
            whole.copy_(self._maps[0])
        for whole, part, (_, r, c) in zip(out, self.stem.convolved(seen), places, strict=True):
            a, b = down.first[r], across.first[c]
            whole[:, a : a + down.made, b : b + across.made] = part
        return out

    def _unseen(self, count: int) -> Tensor:
        """Return room for what the stem is to take in, of so many places."""
        down, across = self.under
        return like(self._taken[None, :, : down.taken, : across.taken], count)

    def _see(self, part: Tensor, row: int, column: int) -> None:
        """Write what the stem takes in around a place of the image at hand into `part`."""
        down, across = self.under
        top, left = down.first[row] * down.stride, across.first[column] * across.stride
        part.copy_(self._taken[:, top : top + down.taken, left : left + across.taken])
        (inside, source), (inside_, source_) = down.cover(row), across.cover(column)
        part[:, inside, inside_] = self._cover[:, source, source_]

    def _turn(self, image: int) -> None:
        """Have at hand what the stem takes in of an image, with its border, and of its cover, and
        its maps.
        """
        if image == self._last:
            return
        self._last, x = image, self.x[image, None]
        down, across = (int(side) for side in self.stem.conv.padding)
        self._taken = F.pad(self.stem.taken(x), (across, across, down, down))[0]
        self._cover = self.stem.taken(self.fill[image, None].expand_as(x))[0]
        self._maps = self.stem.maps(x)
        if self.stem.low:
            self._maps = self._maps.bfloat16()


class Under:
    """Along one axis, which pixels of the stem's maps hear of each place.

    made, taken: of how many pixels of the maps, and of how many of what the stem takes in, the
    same for every place. first: the first pixel of the maps for each.
    """

    def __init__(self, conv: nn.Conv2d, axis: int, windows: Windows, side: int) -> None:
        self.stride, self.padding = conv.stride[axis], int(conv.padding[axis])
        self.spans = windows.spans
        reach = conv.dilation[axis] * (conv.kernel_size[axis] - 1)
        longest = max(stop - start for start, stop in windows.spans)
        self.made = min(side, (longest - 1 + reach) // self.stride + 1)
        self.taken = (self.made - 1) * self.stride + reach + 1
        firsts = (-((reach - start - self.padding) // self.stride) for start, _ in windows.spans)
        self.first = [min(max(first, 0), side - self.made) for first in firsts]

    def cover(self, place: int) -> tuple[slice, slice]:
        """Return where the cover lies in what is taken, and in the image."""
        start, stop = self.spans[place]
        zero = self.first[place] * self.stride - self.padding  # the first that is taken
        start, stop = max(start, zero), min(stop, zero + self.taken)
        stop = max(start, stop)
        return slice(start - zero, stop - zero), slice(start, stop)


def like(maps: Tensor, count: int) -> Tensor:
    """Return room for so many maps of the size and kind of those in (1, c, h, w)."""
    shape, layout = (count, *maps.shape[1:]), torch.channels_last
    return torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=layout)
