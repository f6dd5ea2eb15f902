"""The pooled maps of a stem, computed only around a square of the images.

A stem of 7x7 pixels and the max-pooling behind it are computed in float32, where CPUs are slow;
a square of a few pixels changes a few of the pooled pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.models.changes.steps import Step
from diascope.models.stem import Stem

MOST_SHARE = 0.5  # share of the pooled pixels above which all of them are computed


@dataclass(frozen=True)
class Axis:
    """Along one axis, which pixels of the image a pooled pixel hears of.

    Pixel n hears of `reach` pixels of the image from stride * n - before on, by way of `count` of
    the stem's maps' from step * n - padding on. image, maps, side: how many pixels each has.
    """

    stride: int
    before: int
    reach: int
    step: int
    padding: int
    count: int
    image: int
    maps: int
    side: int

    def many(self, length: int) -> int:
        """Return how many pooled pixels hear of so many of the image at most."""
        return min(self.side, (length + self.reach - 2) // self.stride + 1)

    def first(self, start: Tensor, many: int) -> Tensor:
        """Return the first of so many pooled pixels that hear of the image's from `start` on."""
        first = -((self.reach - 1 - self.before - start) // self.stride)
        return first.clamp(0, self.side - many)

    def pixels(self, first: Tensor, many: int) -> tuple[Tensor, Tensor]:
        """Return those of the image (B, n) that so many hear of, and which of them there are."""
        length = self.stride * (many - 1) + self.reach
        places = (self.stride * first - self.before)[:, None] + torch.arange(length)
        return places.clamp(0, self.image - 1), (places >= 0) & (places < self.image)

    def missing(self, first: Tensor, many: int) -> Tensor:
        """Return which of the maps' pixels (B, n) that so many hear of there are not."""
        length = self.step * (many - 1) + self.count
        places = (self.step * first - self.padding)[:, None] + torch.arange(length)
        return (places < 0) | (places >= self.maps)


@dataclass(frozen=True)
class Patch:
    """Pooled maps (B, n, m, c) and where they lie: (B, 1, 1), (B, n, 1), (B, 1, m)."""

    values: Tensor
    where: tuple[Tensor, Tensor, Tensor]


class Around:
    """What a stem and the max-pooling behind it make of squares of images (B, C, H, W)."""

    def __init__(
        self, stem: Stem, kernel: list[int], stride: list[int], padding: list[int], rectified: bool
    ) -> None:
        self.stem, self.kernel, self.stride, self.rectified = stem, kernel, stride, rectified
        conv, image, axes = stem.conv, stem.nothing.shape[2:], []
        for n in range(2):
            step, pad = conv.stride[n], int(conv.padding[n])
            maps = (image[n] + 2 * pad - conv.kernel_size[n]) // step + 1
            axes.append(
                Axis(
                    stride=step * stride[n],
                    before=step * padding[n] + pad,
                    reach=step * (kernel[n] - 1) + conv.kernel_size[n],
                    step=stride[n],
                    padding=padding[n],
                    count=kernel[n],
                    image=image[n],
                    maps=maps,
                    side=(maps + 2 * padding[n] - kernel[n]) // stride[n] + 1,
                )
            )
        self.axes = axes

    def pooled(self, x: Tensor, where: Tensor) -> Patch | None:
        """Return the pooled maps around a square of each image; None where they are most of all.

        x: (B, C, H, W). where: (B, n), places of the square in images (H, W, C) laid flat.
        """
        pixels = x.permute(0, 2, 3, 1)
        start, stop = (where[:, n] // pixels.shape[3] for n in (0, -1))
        corner = start // pixels.shape[2], start % pixels.shape[2]
        length = int(stop[0] // pixels.shape[2] - corner[0][0]) + 1
        many = [axis.many(length) for axis in self.axes]
        if many[0] * many[1] > MOST_SHARE * self.axes[0].side * self.axes[1].side:
            return None
        first = [axis.first(c, n) for axis, c, n in zip(self.axes, corner, many, strict=True)]
        image = torch.arange(len(x)).view(-1, 1, 1)
        taken = self._taken(pixels, image, first, many)
        maps = self.stem.convolved(taken.permute(0, 3, 1, 2))
        down, across = (a.missing(f, n) for a, f, n in zip(self.axes, first, many, strict=True))
        maps.masked_fill_(down[:, None, :, None] | across[:, None, None], -torch.inf)
        values = F.max_pool2d(maps, self.kernel, self.stride)
        values = values.relu_() if self.rectified else values
        rows, columns = (f[:, None] + torch.arange(n) for f, n in zip(first, many, strict=True))
        return Patch(values.permute(0, 2, 3, 1), (image, rows[:, :, None], columns[:, None]))

    def _taken(self, pixels: Tensor, image: Tensor, first: list[Tensor], many: list[int]) -> Tensor:
        """Return what the stem takes in (B, h, w, C), zero beyond the edges."""
        (rows, high), (columns, wide) = (
            axis.pixels(f, n) for axis, f, n in zip(self.axes, first, many, strict=True)
        )
        taken = pixels[image, rows[:, :, None], columns[:, None]]
        taken = taken * self.stem.scale.flatten() + self.stem.shift.flatten()
        return taken * (high[:, :, None] & wide[:, None])[..., None]


def around_of(stem: Stem, before: Sequence[Step]) -> Around | None:
    """Return what computes squares of the stem's pooled maps, which are made by steps.

    The last of them is `rules.pooled`. None where it is not of the stem's maps themselves, has gaps
    or rounds its sides up.
    """
    if any(step.func.__name__ != "__get__" for step in before[:-1]):  # such as of `.data`
        return None
    _, args, kwargs, _, rectified = before[-1].args
    names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = dict(zip(names, args[1:], strict=False)) | kwargs
    kernel = _pair(given["kernel_size"])
    stride = _pair(given.get("stride") or kernel)
    plain = _pair(given.get("dilation", 1)) == _pair(stem.conv.dilation) == [1, 1]
    if not plain or given.get("ceil_mode"):
        return None
    return Around(stem, kernel, stride, _pair(given.get("padding", 0)), rectified)


@lru_cache(maxsize=64)
def square(side: int, wide: int, channels: int, device: torch.device) -> Tensor:
    """Return the places (n,) of a square at the origin of an image of that width laid flat."""
    steps = torch.arange(side)
    places = (steps[:, None] * wide + steps)[..., None] * channels + torch.arange(channels)
    return places.flatten().to(device)


def squares(corner: Tensor, side: int, shape: torch.Size) -> Tensor:
    """Return the places (B, n) of squares in images of a shape (B, C, H, W), corners (B, 2)."""
    channels, wide = shape[1], shape[3]
    first = (corner[:, 0] * wide + corner[:, 1]) * channels
    return first[:, None] + square(side, wide, channels, corner.device)


def _pair(value: int | Sequence[int]) -> list[int]:
    """Return a number for both axes, or that of each."""
    return [value, value] if isinstance(value, int) else list(value) * (2 // len(value))
