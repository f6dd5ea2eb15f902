"""Localisation: does the map lie on the pathology that the mask outlines?

A measure is called with `heat` (B, H, W), not negative, and `mask` (B, H, W) bool, and returns
float32 (B,) in [0, 1], higher is better. Each image is measured by itself. What is defined:

- an empty mask: nothing, NaN, and never a hit;
- a mask of the whole image: NaN, for no map can miss it;
- a map that is not finite: NaN;
- a map that is zero everywhere: the mass inside is NaN (there is no mass). The other measures
  rank or divide the pixels, and a map that is the same everywhere, zero or not, has exactly
  their chance level.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diascope.evaluation.measures import MEASURES
from diascope.evaluation.measures.maps import Maps, by_chunks
from diascope.evaluation.measures.ranks import count, runs


class Localisation(ABC):
    """The base of the family: checks the input and leaves undefined images out."""

    family: ClassVar[str] = "localisation"
    higher_is_better: ClassVar[bool] = True
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __call__(self, heat: Tensor, mask: Tensor) -> Tensor:
        """Return the measure of each image (B,), NaN where it is not defined.

        Raises `ValueError` for shapes that differ, a mask that is not bool, and negative heat.
        """
        return by_chunks(lambda *rows: self.of(Maps(*rows)), heat, mask)

    def of(self, maps: Maps) -> Tensor:
        """Return the measure of maps with masks that other measures look at too."""
        if maps.mask is None:
            raise ValueError("these maps have no masks")
        defined = maps.finite & maps.outlined
        return torch.where(defined, self._measure(maps, maps.mask), torch.nan)

    def chance(self, mask: Tensor) -> Tensor:
        """Return what a map that is the same everywhere scores (B,), NaN where not defined."""
        inside, reached = (count(each.flatten(1)) for each in (mask, self._reached(mask)))
        size = mask[:1].numel() or 1
        defined = (inside > 0) & (inside < size)
        return torch.where(defined, self._by_area(reached / size), torch.nan)

    @abstractmethod
    def _measure(self, maps: Maps, mask: Tensor) -> Tensor:
        """Return (B,); values of undefined images do not matter."""

    def _reached(self, mask: Tensor) -> Tensor:
        """Return the pixels that count as inside."""
        return mask

    def _by_area(self, share: Tensor) -> Tensor:
        """Return the level of chance (B,) for masks that reach this share of the area."""
        return share


@MEASURES.register("mass_inside")
@dataclass(frozen=True)
class MassInside(Localisation):
    """Measure the share of the map's sum that lies inside the mask; NaN for an all-zero map.

    The energy-based pointing game of Wang et al. 2020 (Score-CAM, arXiv 1910.01279). Of the
    hairs instead of the lesion it is the share of the saliency that lies on hairs.
    """

    def _measure(self, maps: Maps, mask: Tensor) -> Tensor:
        heat = maps.unit.flatten(1)  # the sum of large floats does not overflow
        return (heat * mask.flatten(1)).sum(1) / heat.sum(1)


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

    def _measure(self, maps: Maps, mask: Tensor) -> Tensor:
        maxima = maps.heat.flatten(1) == maps.peak[:, None]
        hits = maxima & self._reached(mask).flatten(1)
        return count(hits) / count(maxima)

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

    def _measure(self, maps: Maps, mask: Tensor) -> Tensor:
        ranking = maps.ranking
        precision = ranking.found / ranking.rank  # (B, P), wrong within runs of equal values
        first, more, later = runs(maps.ties)
        flat = precision.view(-1)
        last = flat[first + more]
        flat[first] = last
        flat[later] = last.repeat_interleave(more)
        return (precision * ranking.inside).sum(1) / ranking.found[:, -1]


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
