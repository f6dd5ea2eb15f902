"""Localisation: does the map lie on the pathology that the mask outlines?

A measure is called with `heat` (B, H, W), not negative, and `mask` (B, H, W) bool, and returns
float32 (B,) in [0, 1], higher is better. Each image is measured by itself. What is defined:

- an empty mask: nothing, NaN, and never a hit;
- a mask of the whole image: NaN, for no map can miss it;
- a map that is not finite: NaN;
- a map that is zero everywhere: the mass inside is NaN (there is no mass). The pointing game and
  the average precision only rank pixels, and a map that is the same everywhere, zero or not,
  has exactly their chance level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from diascope.evaluation.measures import MEASURES


class Localisation(ABC):
    """The base of the family: checks the input and leaves undefined images out."""

    family: ClassVar[str] = "localisation"
    higher_is_better: ClassVar[bool] = True
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __call__(self, heat: Tensor, mask: Tensor) -> Tensor:
        """Return the measure of each image (B,), NaN where it is not defined.

        Raises `ValueError` for shapes that differ, a mask that is not bool, and negative heat.
        """
        if heat.ndim != 3 or heat.shape != mask.shape or mask.dtype != torch.bool:
            raise ValueError(
                f"heat {tuple(heat.shape)} and mask {tuple(mask.shape)} {mask.dtype}: "
                "expected (B, H, W) both, the mask bool"
            )
        heat = heat.detach().float()
        finite = heat.isfinite().flatten(1).all(1)
        heat = torch.where(finite[:, None, None], heat, 0.0)
        if (heat < 0).any():
            raise ValueError("heat is negative: render a signed attribution first")
        inside = mask.to(heat.device)
        defined = finite & inside.flatten(1).any(1) & ~inside.flatten(1).all(1)
        return torch.where(defined, self._measure(heat, inside), torch.nan)

    def chance(self, mask: Tensor) -> Tensor:
        """Return what a map that is the same everywhere scores: the mask's area share (B,)."""
        inside = mask.flatten(1)
        share = self._reached(mask).flatten(1).float().mean(1)
        return torch.where(inside.any(1) & ~inside.all(1), share, torch.nan)

    @abstractmethod
    def _measure(self, heat: Tensor, mask: Tensor) -> Tensor:
        """Return (B,) for finite heat (B, H, W); values of undefined images do not matter."""

    def _reached(self, mask: Tensor) -> Tensor:
        """Return the pixels that count as inside."""
        return mask


@MEASURES.register("mass_inside")
@dataclass(frozen=True)
class MassInside(Localisation):
    """Measure the share of the map's sum that lies inside the mask; NaN for an all-zero map.

    The energy-based pointing game of Wang et al. 2020 (Score-CAM, arXiv 1910.01279).
    """

    def _measure(self, heat: Tensor, mask: Tensor) -> Tensor:
        peak = heat.flatten(1).amax(1)[:, None, None]
        heat = heat / peak  # the sum of large floats does not overflow
        return (heat * mask).flatten(1).sum(1) / heat.flatten(1).sum(1)


@MEASURES.register("pointing")
@dataclass(frozen=True)
class PointingGame(Localisation):
    """Measure whether the map's maximum lies inside the mask, or within `tolerance` pixels of it.

    Zhang et al. 2018 (Excitation backprop, arXiv 1608.00507), who allow 15 pixels; 0 here by
    default. Of several equal maxima the share that hits counts, so that ties, as in capped maps,
    are not decided by the order of the pixels. The distance is Euclidean, between pixel centres.
    """

    tolerance: float = 0.0

    def __post_init__(self) -> None:
        if not self.tolerance >= 0:
            raise ValueError(f"tolerance is {self.tolerance}, and must not be negative")

    def _measure(self, heat: Tensor, mask: Tensor) -> Tensor:
        pixels = heat.flatten(1)
        maxima = pixels == pixels.amax(1, keepdim=True)
        hits = maxima & self._reached(mask).flatten(1)
        return hits.sum(1) / maxima.sum(1)

    def _reached(self, mask: Tensor) -> Tensor:
        return dilate(mask, self.tolerance)


@MEASURES.register("average_precision")
@dataclass(frozen=True)
class AveragePrecision(Localisation):
    """Measure how well the map ranks the pixels inside the mask above those outside.

    The average precision of the map as a detector of the mask's pixels: the sum over thresholds
    of precision times the gain in recall, one threshold a distinct value, without interpolation
    (`sklearn.metrics.average_precision_score`). It depends on the order of the values alone.
    """

    def _measure(self, heat: Tensor, mask: Tensor) -> Tensor:
        values, inside = _descending(heat.flatten(1), mask.flatten(1))
        changes = values[:, 1:] != values[:, :-1]
        edge = torch.ones_like(changes[:, :1])
        first, last = torch.cat([edge, changes], 1), torch.cat([changes, edge], 1)  # of each value
        found = inside.cumsum(1, dtype=torch.int32)  # (B, P)
        before = torch.where(first, found - inside, 0).cummax(1).values  # found at larger values
        rank = torch.arange(1, values.shape[1] + 1, device=values.device)
        gain = torch.where(last, found - before, 0)
        return (gain * (found / rank)).sum(1) / found[:, -1]


def dilate(mask: Tensor, radius: float) -> Tensor:
    """Return the pixels within `radius` pixels of the mask: (B, H, W) bool."""
    if radius < 1:
        return mask
    height, width = mask.shape[1:]
    place = torch.arange(width, device=mask.device)
    far = height + width + int(radius)
    left = torch.where(mask, place, -far).cummax(2).values  # nearest mask column, left or here
    right = torch.where(mask, place, 2 * far).flip(2).cummin(2).values.flip(2)
    away = torch.minimum(place - left, right - place)  # columns to the mask in the same row
    grown = mask.clone()
    for dy in range(min(int(radius), height - 1) + 1):
        wide = away <= (radius**2 - dy**2) ** 0.5
        grown[:, dy:] |= wide[:, : height - dy]
        grown[:, : height - dy] |= wide[:, dy:]
    return grown


def _descending(heat: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of `heat` (B, P) from large to small, and the mask, 0 or 1, in the same order.

    On the CPU the bits of a float that is not negative, which order as integers, are packed with
    the mask's into one integer, which numpy sorts some 20 times faster than torch sorts pairs.
    """
    if heat.device.type != "cpu":
        values, order = heat.sort(1, descending=True)
        return values, mask.gather(1, order).int()
    bits = heat.contiguous().numpy().view(np.uint32)  # the shift drops the sign of a -0.0
    packed = (bits << 1) | mask.numpy()
    packed.sort(axis=1)
    packed = packed[:, ::-1]
    values = torch.from_numpy((packed >> 1).astype(np.int32))
    return values, torch.from_numpy((packed & 1).astype(np.int32))
