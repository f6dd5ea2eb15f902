"""Weighted sums over steps of images' gradients, gathered where that costs the least."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diascope.explain.chunks import Chunk
from diascope.explain.gradient import Score, input_gradient
from diascope.models.stem import Stem, stem_apart

FEW = 8  # steps: of fewer too much would be held at the stem for what is gained


class AtImages:
    """Gradients of the score `of` the classes `targets` (B,) to images like `x` (B, C, H, W).

    total: the sums, like `x`; an image's is there after its last step.
    """

    def __init__(self, net: nn.Module, x: Tensor, targets: Tensor, of: Score) -> None:
        self.net, self.targets, self.of = net, targets, of
        self.total = torch.zeros_like(x)

    def add(self, chunk: Chunk, at: Tensor, weights: Tensor) -> None:
        """Add the gradients at images (n, C, H, W), one for each row, times `weights` (n,)."""
        gradient = input_gradient(self.net, at, self.targets[chunk.image], self.of)
        chunk.add_to(self.total, gradient * weights.view(-1, 1, 1, 1))

    def add_between(
        self, chunk: Chunk, ends: tuple[Tensor, Tensor], points: Tensor, weights: Tensor
    ) -> None:
        """Add those at (1 - a) first + a second of the images' ends, each like `x`, with a of
        `points` (n,).
        """
        first, second = (end[chunk.image] for end in ends)
        self.add(chunk, torch.lerp(first, second, points.view(-1, 1, 1, 1)), weights)


class AtStem(AtImages):
    """The same, summed at the stem's maps and taken to the pixels once an image.

    The steps come in order, image by image; an image's last is number `steps` - 1. Its maps and
    their sum are held until then.
    """

    def __init__(self, stem: Stem, x: Tensor, targets: Tensor, of: Score, steps: int) -> None:
        super().__init__(nn.Identity(), x, targets, of)
        self.stem, self.steps = stem, steps
        self._sums: dict[int, Tensor] = {}
        self._ways: dict[int, tuple[Tensor, Tensor]] = {}

    def add(self, chunk: Chunk, at: Tensor, weights: Tensor) -> None:
        """Add the gradients at images, see `AtImages`."""
        self._add(chunk, self.stem.maps(at), weights)

    def add_between(
        self, chunk: Chunk, ends: tuple[Tensor, Tensor], points: Tensor, weights: Tensor
    ) -> None:
        """Add the gradients between images, see `AtImages`."""
        shape = self._way(chunk.spans[0][0], ends)[0].shape[1:]
        maps = points.new_empty(len(points), *shape).to(memory_format=torch.channels_last)
        for image, rows in chunk.spans:
            start, way = self._way(image, ends)
            torch.addcmul(start, way, points[rows].view(-1, 1, 1, 1), out=maps[rows])
            if self._is_last(chunk, rows):
                del self._ways[image]
        self._add(chunk, maps, weights)

    def _way(self, image: int, ends: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the maps of the image's first end, and the way from there to its second's."""
        if image not in self._ways:
            start, end = (self.stem.maps(x[image, None]) for x in ends)
            self._ways[image] = start, end.sub_(start)
        return self._ways[image]

    def _add(self, chunk: Chunk, maps: Tensor, weights: Tensor) -> None:
        gradient = input_gradient(self.stem.rest, maps, self.targets[chunk.image], self.of)
        gradient = gradient.permute(0, 2, 3, 1)  # as it lies in memory
        flat, shape = gradient.reshape(len(gradient), -1), gradient[:1].shape
        for image, rows in chunk.spans:
            with torch.autocast(maps.device.type, enabled=False):
                part = (weights[rows] @ flat[rows]).view(shape).permute(0, 3, 1, 2)
            self._sums[image] = self._sums[image].add_(part) if image in self._sums else part
            if self._is_last(chunk, rows):
                self.total[image] += self.stem.to_images(self._sums.pop(image))[0]

    def _is_last(self, chunk: Chunk, rows: slice) -> bool:
        return int(chunk.step[rows.stop - 1]) == self.steps - 1


def sums_of(net: nn.Module, x: Tensor, targets: Tensor, of: Score, steps: int) -> AtImages:
    """Return what sums the gradients of `steps` steps for each of the images x (B, C, H, W)."""
    stem = stem_apart(net, x, passes=3 * steps * len(x)) if steps >= FEW else None
    plain = AtImages(net, x, targets, of)
    return plain if stem is None else AtStem(stem, x, targets, of, steps)
