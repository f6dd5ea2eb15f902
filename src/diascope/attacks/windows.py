"""The moves of the square attack: where each image changes next, by its own random numbers.

Images are held as (B, H, W, C), which is the channels-last layout that convolutions read; every
image has its own windows, addressed by one index for the whole batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Self

import torch
from torch import Tensor

from diascope.attacks.threat import Threat
from diascope.models.changes.around import square
from diascope.randomness import Noise

_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries
_GRID = 5  # the L2 start is a grid of so many bumps a side


@dataclass(frozen=True)
class Moves:
    """Points of the ball around images `x` (B, H, W, C) to ask the model about."""

    x: Tensor
    threat: Threat

    @property
    def count(self) -> int:
        """How many random numbers a move takes."""
        raise NotImplementedError

    def start(self, noise: Noise, stream: int) -> Tensor:
        """Return the first points, (B, H, W, C)."""
        raise NotImplementedError

    def change(self, at: Tensor, u: Tensor, share: float) -> tuple[Tensor | None, Tensor]:
        """Return where `at` is to change, in a window of `share` of the pixels, and to what.

        Both are (B, n), places in the image laid flat and values there; or None, and the whole
        points (B, H, W, C). u: (B, count), uniform in [0, 1).
        """
        raise NotImplementedError

    def propose(self, at: Tensor, u: Tensor, share: float) -> Tensor:
        """Return the points (B, H, W, C) to which `change` leads from `at`."""
        where, values = self.change(at, u, share)
        if where is None:
            return values
        return at.flatten(1).scatter(1, where, values).view_as(at)

    def take(self, rows: Tensor) -> Self:
        """Return the moves of some of the images."""
        return replace(self, x=self.x[rows], threat=self.threat.take(rows))


def moves(x: Tensor, threat: Threat) -> Moves:
    """Return the moves in the ball of `threat` around x (B, C, H, W)."""
    pixels = x.permute(0, 2, 3, 1).contiguous()
    return Squares(pixels, threat) if threat.norm == "linf" else Windows(pixels, threat)


def share(query: int, queries: int, first: float) -> float:
    """Return the share of the pixels in the window: `first`, halved as the budget is spent."""
    spent = query * 10_000 / queries
    return first * 0.5 ** sum(spent > mark for mark in _HALVINGS)


@dataclass(frozen=True)
class Squares(Moves):
    """L-inf: squares of one colour at +-eps (Andriushchenko et al. 2020, algorithm 2)."""

    @property
    def count(self) -> int:
        """Row, column, and a sign for each channel."""
        return 2 + self.x.shape[3]

    def start(self, noise: Noise, stream: int) -> Tensor:
        """Return vertical stripes one pixel wide, each channel at +-eps."""
        sign = _signs(noise.uniform((1, *self.x.shape[2:]), stream), self.x)
        return self.threat.project(self.x + 2 * sign, self.x)  # sent back to +-eps

    def change(self, at: Tensor, u: Tensor, share: float) -> tuple[Tensor | None, Tensor]:
        """Return a square of each image, and +-eps there, a sign for each channel."""
        count, _, wide, channels = self.x.shape
        side = _side(self.x, share)
        top, left = _corner(self.x, u[:, 0], u[:, 1], side)
        first = (top * wide + left).mul_(channels)
        where = first[:, None] + square(side, wide, channels, self.x.device)
        old = self.x.view(count, -1).gather(1, where).view(count, 1, -1, channels)
        new = self.threat.project(old + 2 * _signs(u[:, None, None, 2:], self.x), old)
        return where, new.view(count, -1)


@dataclass(frozen=True)
class Windows(Moves):
    """L2: mass moved from one window into a bump in another (algorithm 3).

    L1: the same with sums of |.| for lengths, then the nearest point of ball and bounds (Croce
    and Hein 2021).
    """

    @property
    def count(self) -> int:
        """Two windows' rows and columns, the bump's orientation, a sign for each channel."""
        return 5 + self.x.shape[3]

    def start(self, noise: Noise, stream: int) -> Tensor:
        """Return a grid of bumps over the image, each channel's of a random sign."""
        _, high, wide, channels = self.x.shape
        side = max(1, min(high, wide) // _GRID)
        down, across = math.ceil(high / side), math.ceil(wide / side)
        u = noise.uniform((down, across, channels + 1), stream).to(self.x.dtype)
        u = u.repeat_interleave(side, 1)[:, :high].repeat_interleave(side, 2)[:, :, :wide]
        bump = _bump(side, self.x.dtype, self.x.device)
        tiled = bump.repeat(down, across)[:high, :wide, None]
        turned = bump.T.repeat(down, across)[:high, :wide, None]
        delta = torch.where(u[..., :1] < 0.5, tiled, turned) * _signs(u[..., 1:], self.x)
        length = self.threat.size(delta).view(-1, 1, 1, 1)
        return self.threat.project(self.x + delta * (self._eps / length), self.x)

    def change(self, at: Tensor, u: Tensor, share: float) -> tuple[Tensor | None, Tensor]:
        """Return `at` with one window emptied and its length, and what is unused, in another."""
        side = _side(self.x, share)
        side = min(max(side + 1 - side % 2, 3), min(self.x.shape[1:3]))
        first = _window(self.x, u[:, 0], u[:, 1], side)
        second = _window(self.x, u[:, 2], u[:, 3], side)
        delta = at - self.x
        unused = (self._budget - self._mass(delta).sum(3, keepdim=True)).clamp_min(0)
        old = delta[first]  # (B, side, side, C)
        mass = self._mass(old)
        delta[first] = 0
        mass += self._mass(delta[second]) + unused / self.x.shape[3]
        delta[second] = 0
        bump = _bump(side, self.x.dtype, self.x.device)[None, :, :, None]
        bump = torch.where(u[:, 4].view(-1, 1, 1, 1) < 0.5, bump, bump.transpose(1, 2))
        fresh = _signs(u[:, None, None, 5:], self.x) * self._unit(bump) + self._unit(old)
        length = mass.sqrt() if self.threat.norm == "l2" else mass
        delta[first] = self._unit(fresh) * length
        return None, self.threat.project(self.x + delta, self.x)

    @property
    def _eps(self) -> float | Tensor:
        eps = self.threat.eps
        return eps.to(self.x).view(-1, 1, 1, 1) if isinstance(eps, Tensor) else eps

    @property
    def _budget(self) -> float | Tensor:
        return self._eps**2 if self.threat.norm == "l2" else self._eps

    def _power(self, value: Tensor) -> Tensor:
        return value.square() if self.threat.norm == "l2" else value.abs()

    def _mass(self, delta: Tensor) -> Tensor:
        """Return each channel's sum of squares (L2) or of absolute values (L1), (B, 1, 1, C)."""
        return self._power(delta).sum((1, 2), keepdim=True)

    def _unit(self, delta: Tensor) -> Tensor:
        """Return each channel at unit length; a channel of zeros stays."""
        mass = self._mass(delta)
        return delta / (mass.sqrt() if self.threat.norm == "l2" else mass).clamp_min(1e-30)


def _side(x: Tensor, share: float) -> int:
    high, wide = x.shape[1:3]
    return min(max(round(math.sqrt(share * high * wide)), 1), high, wide)


def _signs(u: Tensor, like: Tensor) -> Tensor:
    return torch.ones_like(u, dtype=like.dtype).masked_fill_(u < 0.5, -1.0)


def _corner(x: Tensor, down: Tensor, across: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Return the first row and column of a square window, placed by uniform numbers (B,).

    In float32 the product of a number below 1 and a count stays below the count.
    """
    high, wide = x.shape[1:3]
    return (down * (high - side + 1)).long(), (across * (wide - side + 1)).long()


def _window(x: Tensor, down: Tensor, across: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the index of a square window in each image: (B, 1, 1), (B, n, 1), (B, 1, n)."""
    top, left = _corner(x, down, across, side)
    steps = torch.arange(side, device=x.device)
    image = torch.arange(len(x), device=x.device).view(-1, 1, 1)
    return image, top.view(-1, 1, 1) + steps[:, None], left.view(-1, 1, 1) + steps


@lru_cache(maxsize=64)
def _bump(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Return two opposite pyramids that fill a square between them (equation 2), (side, side).

    Kept, for a run asks for few sides many times, and each is made on the host.
    """
    upper = side // 2
    parts = [_pyramid(upper, side), -_pyramid(side - upper, side)]
    return torch.cat(parts).to(device, dtype)


def _pyramid(high: int, wide: int) -> Tensor:
    """Return sums of 1 / j^2 from the distance to the centre outwards, (high, wide)."""
    far = max(high, wide) // 2
    levels = (1.0 / torch.arange(1, far + 2, dtype=torch.float64).square()).flip(0).cumsum(0)
    down = (torch.arange(high) - high // 2).abs()[:, None]
    across = (torch.arange(wide) - wide // 2).abs()[None]
    return levels.flip(0)[torch.maximum(down, across)]
