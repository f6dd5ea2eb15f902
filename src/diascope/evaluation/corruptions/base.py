"""What every corruption promises, and the pieces that several are made of."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from diascope.randomness import Noise, derive

SEVERITIES = (1, 2, 3, 4, 5)
Levels = tuple[float, float, float, float, float]


@dataclass(frozen=True, kw_only=True)
class Corruption(ABC):
    """The base: checks the input, finds the level, and keeps the result within [0, 1].

    levels: the strength of severities 1 to 5. seed: of what is drawn by lot for each image.
    needs_colour: whether a grey image comes back unchanged, since it has nothing to corrupt.
    """

    levels: Levels
    seed: int = 0
    needs_colour: ClassVar[bool] = False

    @torch.no_grad()
    def __call__(self, x: Tensor, severity: int, ids: Tensor | None = None) -> Tensor:
        """Return x (B, C, H, W) corrupted: float32 in [0, 1], of the same shape.

        `ids` (B,) int64 name the images, by which chance is drawn; without them an image goes by
        its place in the batch. Raises `ValueError` for another shape or severity.
        """
        if x.ndim != 4 or x.shape[1] not in (1, 3):
            raise ValueError(f"images must be (B, 1 or 3, H, W), not {tuple(x.shape)}")
        if severity not in SEVERITIES:
            raise ValueError(f"severity={severity}: a whole number from 1 to 5")
        x = x.float()
        if not len(x) or (self.needs_colour and x.shape[1] == 1):
            return x.clone()
        ids = torch.arange(len(x)) if ids is None else ids
        noise = Noise(derive(self.seed, "corruption", type(self).__name__), ids.to(x.device))
        return self._apply(x, self.levels[severity - 1], noise).clamp_(0, 1)

    @abstractmethod
    def _apply(self, x: Tensor, level: float, noise: Noise) -> Tensor:
        """Return a new tensor: x (B, C, H, W) at a level; values may leave [0, 1]."""


def either(noise: Noise) -> Tensor:
    """Return +1 or -1 for each image, with equal chance, (B, 1, 1, 1)."""
    return torch.where(noise.uniform((1, 1, 1)) < 0.5, 1.0, -1.0)


@lru_cache(maxsize=64)
def heat_kernel(count: int, sigma: float) -> Tensor:
    """Return the matrix (n, n) that blurs a row of n pixels by `sigma` pixels, edges reflected.

    Lindeberg's discrete Gaussian (1990, Scale-space for discrete signals, equation 14): the heat
    equation on a grid, exp(-sigma^2 (1 - cos w)) at the frequency w of the cosine transform. Its
    rows are not negative and sum to 1; blurring twice adds the variances.
    """
    k = torch.arange(count, dtype=torch.float64)
    basis = torch.cos(math.pi / count * (k[None] + 0.5) * k[:, None])  # (frequency, place)
    basis *= torch.where(k > 0, math.sqrt(2 / count), math.sqrt(1 / count))[:, None]
    passed = torch.exp(-(sigma**2) * (1 - torch.cos(math.pi * k / count)))
    return (basis.T @ (passed[:, None] * basis)).clamp_min_(0).float()
