"""Images with a part covered, and what a model makes of them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn


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
