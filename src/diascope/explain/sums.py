"""Weighted sums over steps of images' gradients, gathered where that costs the least."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diascope.explain.chunks import Chunk
from diascope.explain.gradient import Score, input_gradient
from diascope.models.stem import Stem, stem_apart

FEW = 4  # steps; of so few a stem gains nothing


class AtImages:
    """Gradients to the images, summed as they come.

    total: the sums so far, like the images (B, C, H, W).
    """

    def __init__(self, net: nn.Module, x: Tensor) -> None:
        self.net, self.total = net, torch.zeros_like(x)

    def add(self, chunk: Chunk, at: Tensor, targets: Tensor, of: Score, weights: Tensor) -> None:
        """Add the gradients at images (n, C, H, W), one for each row of the chunk, times `weights`
        (n,), with the classes `targets` (n,).
        """
        gradient = input_gradient(self.net, at, targets, of)
        chunk.add_to(self.total, gradient * weights.view(-1, 1, 1, 1))

    def add_between(
        self,
        chunk: Chunk,
        ends: tuple[Tensor, Tensor],
        points: Tensor,
        targets: Tensor,
        of: Score,
        weights: Tensor,
    ) -> None:
        """Add those at (1 - a) first + a second of the images' ends, each (B, C, H, W), with a of
        `points` (n,).
        """
        first, second = (end[chunk.image] for end in ends)
        self.add(chunk, torch.lerp(first, second, points.view(-1, 1, 1, 1)), targets, of, weights)


class AtStem(AtImages):
    """Gradients to the stem's maps, summed there, and taken to the pixels once an image.

    An image's sum is in `total` after its last step, number `steps` - 1. Its maps and their sum
    are held from its first step to its last.
    """

    def __init__(self, stem: Stem, x: Tensor, steps: int) -> None:
        super().__init__(stem.net, x)
        self.stem, self.steps = stem, steps
        self._sums: dict[int, Tensor] = {}
        self._ends: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, chunk: Chunk, at: Tensor, targets: Tensor, of: Score, weights: Tensor) -> None:
        """Add the gradients at images, see `AtImages`."""
        self._add(chunk, self.stem.maps(at), targets, of, weights)

    def add_between(
        self,
        chunk: Chunk,
        ends: tuple[Tensor, Tensor],
        points: Tensor,
        targets: Tensor,
        of: Score,
        weights: Tensor,
    ) -> None:
        """Add the gradients between images, see `AtImages`."""
        maps = None
        for image, rows in chunk.spans:
            start, way = self._way(image, *ends)
            if maps is None:
                maps = start.expand(len(points), -1, -1, -1)
                maps = torch.empty_like(maps, memory_format=torch.channels_last)
            torch.addcmul(start, way, points[rows].view(-1, 1, 1, 1), out=maps[rows])
        assert maps is not None
        self._add(chunk, maps, targets, of, weights)

    def _way(self, image: int, first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
        """Return the maps of the image's first end, and the way from there to its second's."""
        if image not in self._ends:
            start, end = (self.stem.maps(x[image, None]) for x in (first, second))
            self._ends[image] = start, end.sub_(start)
        return self._ends[image]

    def _add(self, chunk: Chunk, maps: Tensor, targets: Tensor, of: Score, weights: Tensor) -> None:
        gradient = input_gradient(self.stem.rest, maps, targets, of)
        shape = gradient[:1].permute(0, 2, 3, 1).shape
        flat = gradient.permute(0, 2, 3, 1).reshape(len(gradient), -1)  # as it lies in memory
        for image, rows in chunk.spans:
            part = (weights[rows] @ flat[rows]).view(shape).permute(0, 3, 1, 2)
            self._sums[image] = self._sums[image].add_(part) if image in self._sums else part
            if int(chunk.step[rows.stop - 1]) == self.steps - 1:
                self._ends.pop(image, None)
                whole = self.stem.to_images(self._sums.pop(image), self.total[image, None])
                self.total[image] += whole[0]


def sums_of(net: nn.Module, x: Tensor, steps: int) -> AtImages:
    """Return what sums the gradients of `steps` steps for each of the images x (B, C, H, W)."""
    stem = stem_apart(net, x) if steps >= FEW else None
    return AtImages(net, x) if stem is None else AtStem(stem, x, steps)
