"""Images with a part covered, and what a model makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.models.stem import Stem, stem_apart


@dataclass(frozen=True)
class Windows:
    """The places of a square patch along one axis: starts and stops in pixels, and the side."""

    spans: tuple[tuple[int, int], ...]
    side: int

    @classmethod
    def of(cls, side: int, patch: int, stride: int) -> Windows:
        """Return the places `stride` apart from the first pixel on, the last cut off at `side`."""
        count = -(-(side - patch) // stride) + 1
        starts = range(0, count * stride, stride)
        return cls(tuple((start, min(start + patch, side)) for start in starts), side)

    def matrix(self, like: Tensor) -> Tensor:
        """Return which pixels each place covers, (n, side), 0 or 1."""
        start, stop = torch.tensor(self.spans, device=like.device).T[:, :, None]
        place = torch.arange(self.side, device=like.device)[None]
        covers: Tensor = (place >= start) & (place < stop)
        return covers.to(like.dtype)


class Covered:
    """Images x (B, C, H, W) of which a place is covered with `fill`, which broadcasts to them."""

    def __init__(self, net: nn.Module, x: Tensor, fill: Tensor, windows: tuple[Windows, Windows]):
        self.net, self.x, self.fill, self.windows = net, x, fill, windows
        self._down, self._across = (each.matrix(x).bool() for each in windows)

    def images(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return images (n, C, H, W): which, and which place of the rows and of the columns is
        covered, each (n,).
        """
        covered = self._down[row][:, None, :, None] & self._across[column][:, None, None, :]
        return torch.where(covered, self.fill[image], self.x[image])

    def whole(self, image: Tensor) -> Tensor:
        """Return the logits (n, K) of images of which nothing is covered."""
        return self.net(self.x[image])  # type: ignore[no-any-return]

    def logits(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the logits (n, K) of `images`."""
        return self.net(self.images(image, row, column))  # type: ignore[no-any-return]


class CoveredMaps(Covered):
    """The same; of the stem's maps only what lies under the cover is computed again.

    The images come in rising order: what is known of the last one is kept.
    """

    def __init__(
        self, stem: Stem, x: Tensor, fill: Tensor, windows: tuple[Windows, Windows]
    ) -> None:
        super().__init__(nn.Identity(), x, fill, windows)
        self.stem, self._last = stem, -1
        self._turn(0)
        sides = self._maps.shape[2:]
        down, across = (_Reach(stem.conv, n, windows[n], sides[n]) for n in range(2))
        self._reach = down, across

    def whole(self, image: Tensor) -> Tensor:
        """Return the logits (n, K) of images of which nothing is covered."""
        out = self._empty(len(image))
        for maps, x in zip(out, self.x[image], strict=True):
            maps.copy_(self.stem.maps(x[None])[0])
        return self.stem.rest(out)

    def logits(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the logits (n, K) of `images`."""
        return self.stem.rest(self.maps(image, row, column))

    def maps(self, image: Tensor, row: Tensor, column: Tensor) -> Tensor:
        """Return the stem's maps (n, c, h, w) of `images`."""
        down, across = self._reach
        places = list(zip(image.tolist(), row.tolist(), column.tolist(), strict=True))
        sides = (down.taken, across.taken)
        seen = self._taken.new_empty(len(places), self._taken.shape[0], *sides)
        seen, out = seen.to(memory_format=torch.channels_last), self._empty(len(places))
        for whole, part, (i, r, c) in zip(out, seen, places, strict=True):
            self._turn(i)
            top, left = down.first[r] * down.stride, across.first[c] * across.stride
            part.copy_(self._taken[:, top : top + down.taken, left : left + across.taken])
            (inside, source), (inside_, source_) = down.cover(r), across.cover(c)
            part[:, inside, inside_] = self._cover[:, source, source_]
            whole.copy_(self._maps[0])
        for whole, part, (_, r, c) in zip(out, self.stem.convolved(seen), places, strict=True):
            a, b = down.first[r], across.first[c]
            whole[:, a : a + down.made, b : b + across.made] = part
        return out

    def _empty(self, count: int) -> Tensor:
        out = self._maps.new_empty(count, *self._maps.shape[1:])
        return out.to(memory_format=torch.channels_last)

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


class _Reach:
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


def covered_of(
    net: nn.Module, x: Tensor, fill: Tensor, windows: tuple[Windows, Windows], passes: int
) -> Covered:
    """Return what covers the images, as `CoveredMaps` where the model's stem allows it.

    passes: the work to come, in passes of one image, over all images.
    """
    stem = stem_apart(net, x, passes)
    return Covered(net, x, fill, windows) if stem is None else CoveredMaps(stem, x, fill, windows)
