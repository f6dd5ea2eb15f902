"""Augmentation of whole batches on their device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.randomness import Noise, derive

_LUMA = (0.299, 0.587, 0.114)
_CACHED = 2 << 20  # bytes of images a thread works on at once: what its caches hold


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

        `x` may be of uint8, 0 to 255: the result is float32 then, too. An image's result depends
        on `seed`, `epoch` and its id in `ids` (B,) alone, whatever batch it stands in.
        """
        if x.dtype not in (torch.float32, torch.uint8):
            return self(x.float(), ids, seed, epoch).to(x.dtype)
        noise = Noise(derive(seed, "augment", epoch), ids.to(x.device))
        draw = noise.uniform((8,)).unbind(1)  # 8 of (B,)
        matrix = self._matrix(draw)
        turned = [u >= 0.5 for u in draw[:2]] if self.flips and matrix is None else None
        factors = [1 + self.colour * (2 * u - 1) for u in draw[4:7]] if self.colour else None
        out = torch.empty_like(x, dtype=torch.float32)
        for start in range(0, len(x), step := _images_at_once(x)):
            part = slice(start, start + step)
            _change(x[part], out[part], _of(turned, part), _of(matrix, part), _of(factors, part))
        return out

    def _matrix(self, draw: tuple[Tensor, ...]) -> list[Tensor] | None:
        """Return a, b, c, d (B,): the pixel at (u, v) comes from (a u + b v, c u + d v).

        None where nothing but flips is asked for.
        """
        if not (self.affine or self.rotation):
            return None
        angle = (2 * draw[2] - 1) * math.radians(self.rotation)
        second = (2 * draw[3] - 1) * math.radians(self.affine)
        if self.affine_as == "rotation":
            angle, second = angle + second, torch.zeros_like(second)
        shear, cos, sin = torch.tan(second), torch.cos(angle), torch.sin(angle)
        right = torch.where(draw[0] < 0.5, 1.0, -1.0) if self.flips else torch.ones_like(cos)
        down = torch.where(draw[1] < 0.5, 1.0, -1.0) if self.flips else torch.ones_like(cos)
        return [cos * right, (shear * cos - sin) * down, sin * right, (shear * sin + cos) * down]


def _flip(x: Tensor, out: Tensor, mirrored: Tensor, upended: Tensor) -> None:
    """Write `x` into `out`, the images (B,) flipped left to right, and upside down, that say so."""
    if x.device.type != "cpu":
        x = torch.where(mirrored[:, None, None, None], x.flip(3), x)
        out.copy_(torch.where(upended[:, None, None, None], x.flip(2), x))
        return
    last = x.is_contiguous(memory_format=torch.channels_last)
    order = (0, 2, 3, 1) if last else (0, 1, 2, 3)  # as it lies in memory: many times faster
    down, across = (0, 1) if last else (1, 2)
    pairs = zip(out.permute(order), x.permute(order), strict=True)
    for (new, old), left, up in zip(pairs, mirrored.tolist(), upended.tolist(), strict=True):
        new.copy_(old.flip([down] * up + [across] * left) if left or up else old)


def _images_at_once(x: Tensor) -> int:
    """Return how many images to work on at once: on a CPU as many as its caches hold."""
    if x.device.type != "cpu":
        return len(x)
    each = 4 * math.prod(x.shape[1:])
    return torch.get_num_threads() * max(1, _CACHED // each)


def _of(values: list[Tensor] | None, part: slice) -> list[Tensor] | None:
    return None if values is None else [value[part] for value in values]


def _change(
    x: Tensor,
    out: Tensor,
    turned: list[Tensor] | None,
    matrix: list[Tensor] | None,
    factors: list[Tensor] | None,
) -> None:
    """Write `x` into `out` as float32 in [0, 1], flipped, warped and recoloured."""
    if turned is None:
        out.copy_(x)
    else:
        _flip(x, out, *turned)
    if x.dtype == torch.uint8:
        out.div_(255)
    changed = out if matrix is None else _warp(out, matrix)
    changed = changed if factors is None else _recolour(changed, factors)
    if changed is not out:
        out.copy_(changed)


def _warp(x: Tensor, matrix: Sequence[Tensor]) -> Tensor:
    """Return `x` sampled bilinearly where `matrix` (in pixels, about the centre) points.

    The products and sums stand apart, so that no batch size rounds them otherwise.
    """
    height, width = x.shape[-2:]
    v = ((torch.arange(height, device=x.device) + 0.5) * 2 - height)[:, None]  # half pixels, (H, 1)
    u = (torch.arange(width, device=x.device) + 0.5) * 2 - width  # (W,)
    a, b, c, d = (value[:, None, None] for value in matrix)
    across, down = torch.complex(a * u, c * u), torch.complex(b * v, d * v)  # x and y at once
    grid = torch.view_as_real(across + down)  # (B, H, W, 2)
    grid /= torch.tensor([width, height], device=x.device) if height != width else width
    return F.grid_sample(x, grid, "bilinear", "reflection", align_corners=False)


def _recolour(x: Tensor, factors: Sequence[Tensor]) -> Tensor:
    """Return `x` with saturation, brightness and contrast (B,) changed, in that order, clipped.

    Each is a mixture: with the pixel's grey, with black, with the image's mean grey. The three
    together are linear, b c s x + b c (1 - s) grey(x) + b (1 - c) mean(grey(x)).
    """
    brightness, contrast, saturation = (f.to(x.dtype)[:, None, None, None] for f in factors)
    if x.shape[1] == 3:
        grey, green, blue = (x[:, k : k + 1] * weight for k, weight in enumerate(_LUMA))
        grey += green
        grey += blue  # (B, 1, H, W)
    else:
        grey, saturation = x.mean(1, keepdim=True), torch.ones_like(saturation)
    mean = grey.mean((1, 2, 3), keepdim=True, dtype=torch.float64).to(x.dtype)
    both = brightness * contrast
    grey *= both * (1 - saturation)
    grey += brightness * (1 - contrast) * mean
    return (x * (both * saturation)).add_(grey).clamp_(0, 1)
