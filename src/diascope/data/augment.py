"""Augmentation of whole batches on their device."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.randomness import Noise, derive

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Augment:
    """P1's augmentation: every image is flipped, turned, sheared and recoloured by chance.

    `flips`: left-right and up-down, each with probability 1/2. `rotation`: degrees, uniform in
    +- this. `affine`: degrees, uniform in +- this; P1's "random affine transformation of 10
    degrees" may be a shear along x (`affine_as="shear"`, since its rotation is named apart) or,
    as torchvision's `RandomAffine(10)`, a second rotation (`affine_as="rotation"`). `colour`:
    brightness, contrast and saturation factors, each uniform in 1 +- this. What turns in from
    outside is the image reflected at its edges.
    """

    flips: bool = True
    colour: float = 0.2
    affine: float = 10.0
    rotation: float = 50.0
    affine_as: Literal["shear", "rotation"] = "shear"

    def __post_init__(self) -> None:
        if not 0 <= self.colour <= 1:
            raise ValueError(f"colour={self.colour}: expected 0 to 1")
        if not 0 <= self.affine <= 60:
            raise ValueError(f"affine={self.affine}: expected 0 to 60 degrees")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation={self.rotation}: expected 0 to 180 degrees")

    def __call__(self, x: Tensor, ids: Tensor, seed: int, epoch: int) -> Tensor:
        """Return `x` (B, C, H, W) in [0, 1], augmented, in the same shape and memory format.

        An image's result depends on `seed`, `epoch` and its id in `ids` (B,) alone, whatever
        batch it stands in.
        """
        if x.dtype != torch.float32:
            return self(x.float(), ids, seed, epoch).to(x.dtype)
        noise = Noise(derive(seed, "augment", epoch), ids.to(x.device))
        draw = noise.uniform((8,)).unbind(1)  # 8 of (B,)
        matrix = self._matrix(draw)
        if matrix is not None:
            x = _warp(x, matrix)
        if self.colour:
            x = _recolour(x, [1 + self.colour * (2 * u - 1) for u in draw[4:7]])
        return x

    def _matrix(self, draw: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor] | None:
        """Return a, b, c, d (B,): the pixel at (u, v) comes from (a u + b v, c u + d v)."""
        if not (self.flips or self.affine or self.rotation):
            return None
        angle = (2 * draw[2] - 1) * math.radians(self.rotation)
        second = (2 * draw[3] - 1) * math.radians(self.affine)
        if self.affine_as == "rotation":
            angle, second = angle + second, torch.zeros_like(second)
        shear, cos, sin = torch.tan(second), torch.cos(angle), torch.sin(angle)
        right = torch.where(draw[0] < 0.5, 1.0, -1.0) if self.flips else torch.ones_like(cos)
        down = torch.where(draw[1] < 0.5, 1.0, -1.0) if self.flips else torch.ones_like(cos)
        return cos * right, (shear * cos - sin) * down, sin * right, (shear * sin + cos) * down


def _warp(x: Tensor, matrix: tuple[Tensor, Tensor, Tensor, Tensor]) -> Tensor:
    """Return `x` sampled bilinearly where `matrix` (in pixels, about the centre) points.

    The products and sums stand apart, so that no batch size rounds them otherwise.
    """
    height, width = x.shape[-2:]
    v = ((torch.arange(height, device=x.device) + 0.5) * 2 - height)[:, None]  # half pixels, (H, 1)
    u = (torch.arange(width, device=x.device) + 0.5) * 2 - width  # (W,)
    a, b, c, d = (value[:, None, None] for value in matrix)
    grid = torch.stack([(a * u + b * v) / width, (c * u + d * v) / height], -1)  # (B, H, W, 2)
    warped = F.grid_sample(x, grid, "bilinear", "reflection", align_corners=False)
    if x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last):
        return warped.contiguous(memory_format=torch.channels_last)
    return warped


def _recolour(x: Tensor, factors: list[Tensor]) -> Tensor:
    """Return `x` with saturation, brightness and contrast (B,) changed, in that order, clipped.

    Each is a mixture: with the pixel's grey, with black, with the image's mean grey. The three
    together are linear, b c s x + b c (1 - s) grey(x) + b (1 - c) mean(grey(x)).
    """
    brightness, contrast, saturation = (f.to(x.dtype)[:, None, None, None] for f in factors)
    if x.shape[1] == 3:
        red, green, blue = (x[:, k : k + 1] * weight for k, weight in enumerate(_LUMA))
        grey = red + green + blue  # (B, 1, H, W)
    else:
        grey, saturation = x.mean(1, keepdim=True), torch.ones_like(saturation)
    mean = grey.mean((1, 2, 3), keepdim=True, dtype=torch.float64).to(x.dtype)
    both = brightness * contrast
    rest = grey * (both * (1 - saturation)) + brightness * (1 - contrast) * mean
    return (x * (both * saturation) + rest).clamp_(0, 1)
