"""The hand shook, or the patient moved."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.evaluation.corruptions import CORRUPTIONS
from diascope.evaluation.corruptions.base import Corruption, Levels
from diascope.randomness import Noise

DIRECTIONS = 8  # between which chance chooses, 22.5 degrees apart


@CORRUPTIONS.register("motion")
@dataclass(frozen=True, kw_only=True)
class Motion(Corruption):
    """Smear along a line; levels: its length as a share of the image's side.

    At 224 pixels the way is 2.7, 4.5, 7.2, 11 and 17 pixels, at even speed, in one of eight
    directions drawn for each image. Edges are reflected.
    """

    levels: Levels = (0.012, 0.020, 0.032, 0.050, 0.075)

    def _apply(self, x: Tensor, level: float, noise: Noise) -> Tensor:
        length = level * max(x.shape[-2:])
        way = (noise.uniform(()) * DIRECTIONS).long()  # (B,)
        out = torch.empty_like(x)
        for k in range(DIRECTIONS):
            rows = (way == k).nonzero()[:, 0]
            if len(rows):
                out[rows] = _smeared(x[rows], length, math.pi * k / DIRECTIONS)
        return out


def _smeared(x: Tensor, length: float, angle: float) -> Tensor:
    """Return the mean of x (B, C, H, W) along a line of `length` pixels about each pixel."""
    taps = _taps(length, angle)
    height, width = x.shape[-2:]
    reach = min(max(max(abs(dy), abs(dx)) for dy, dx in taps), height - 1, width - 1)
    padded = F.pad(x, (reach,) * 4, mode="reflect")
    out = torch.zeros_like(x)
    for (dy, dx), weight in taps.items():
        top, left = (reach + max(-reach, min(reach, d)) for d in (dy, dx))
        out.add_(padded[..., top : top + height, left : left + width], alpha=weight)
    return out


def _taps(length: float, angle: float) -> dict[tuple[int, int], float]:
    """Return how much each neighbour (dy, dx) counts: a line of points, shared out bilinearly."""
    points = 2 * math.ceil(length) + 1
    taps: dict[tuple[int, int], float] = {}
    for p in range(points):
        along = length * (p / (points - 1) - 0.5)
        y, x = along * math.sin(angle), along * math.cos(angle)
        top, left = math.floor(y), math.floor(x)
        for dy, wy in ((top, 1 - (y - top)), (top + 1, y - top)):
            for dx, wx in ((left, 1 - (x - left)), (left + 1, x - left)):
                if wy * wx > 1e-9:
                    taps[dy, dx] = taps.get((dy, dx), 0.0) + wy * wx / points
    return taps
