"""Random numbers by name: each property of a phantom image has its own stream."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from diascope.randomness import Noise, stable_id

SPREAD = 2.0883  # 1 / standard deviation of a cubic B-spline of unit noise on a square lattice


@dataclass(frozen=True)
class Dice:
    """The random properties of a batch of things; each is drawn by its name.

    A value depends on the noise's seed, the thing's id and the name alone, so that adding a
    property to the phantom changes no other.
    """

    noise: Noise

    def __len__(self) -> int:
        return len(self.noise.ids)

    def take(self, rows: Tensor) -> Dice:
        """Return the dice of some of the things."""
        return Dice(self.noise.take(rows))

    def between(self, name: str, low: float, high: float, shape: tuple[int, ...] = ()) -> Tensor:
        """Return uniform values in [low, high), shape (B, *shape)."""
        return low + (high - low) * self.noise.uniform(shape, _stream(name))

    def normal(self, name: str, shape: tuple[int, ...] = ()) -> Tensor:
        """Return standard normal values, shape (B, *shape)."""
        return self.noise.normal(shape, _stream(name))

    def happens(self, name: str, chance: float | Tensor) -> Tensor:
        """Return True with probability `chance`, shape (B,)."""
        return self.noise.uniform((), _stream(name)) < chance

    def field(self, name: str, cells: int, size: int) -> Tensor:
        """Return smooth noise of zero mean and unit variance, shape (B, size, size).

        `cells` lattice cells fit in the width, whatever `size`: the same scene at any size.
        """
        knots = cells + 3
        lattice = (self._bytes(name, knots * knots).view(-1, knots, knots).float() - 127.5) / 73.9
        weights = _spline(cells, size)
        return SPREAD * (weights @ lattice @ weights.T)

    def grain(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """Return triangular noise of zero mean and unit variance, shape (B, *shape).

        The sum of two random bytes: cheap enough for each pixel.
        """
        pairs = self._bytes(name, 2 * math.prod(shape)).view(-1, 2, *shape)
        return (pairs.float().sum(1) - 255.0) / 104.5

    def _bytes(self, name: str, count: int) -> Tensor:
        """Return random bytes, shape (B, count), four of each hash."""
        bits = self.noise.bits((-(-count // 4),), _stream(name))
        return bits.view(torch.uint8)[:, :count].contiguous()


def _stream(name: str) -> int:
    return stable_id(name) & 0xFFFFFF


@lru_cache(maxsize=64)
def _spline(cells: int, size: int) -> Tensor:
    """Return the cubic B-spline weights of a lattice at pixel centres, shape (size, cells + 3)."""
    places = (torch.arange(size) + 0.5) / size * cells + 1.0
    distance = (places[:, None] - torch.arange(cells + 3)[None]).abs()
    near = 2 / 3 - distance**2 + distance**3 / 2
    far = (2 - distance).clamp(min=0) ** 3 / 6
    return torch.where(distance < 1, near, far)


def smoothstep(x: Tensor, low: float, high: float) -> Tensor:
    """Return 0 below `low`, 1 above `high`, and a smooth rise between."""
    t = ((x - low) / (high - low)).clamp(0, 1)
    return t * t * (3 - 2 * t)


def pixel_grid(size: int) -> tuple[Tensor, Tensor]:
    """Return the x and y of pixel centres, the image reaching from -1 to 1; (size, size) each."""
    line = (torch.arange(size) + 0.5) / size * 2 - 1
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x, y


def wide(value: Tensor) -> Tensor:
    """Return (B,) values as (B, 1, 1)."""
    return value[:, None, None]


TURN = 2 * math.pi
