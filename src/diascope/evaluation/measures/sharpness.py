"""Sharpness: is the map concentrated, and is it free of noise? No mask is needed.

A measure is called with `heat` (B, H, W), not negative, and returns float32 (B,). Each image is
measured by itself, and a map ten times as large scores the same. A map that is zero everywhere, or
not finite, has NaN. A rendered map is capped, and so less sharp than the map itself: measure maps
before they are rendered, and compare maps of the same size only.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from diascope.evaluation.measures import MEASURES
from diascope.evaluation.measures.maps import Maps, by_chunks


class Sharpness(ABC):
    """The base of the family: checks the input and leaves undefined images out."""

    family: ClassVar[str] = "sharpness"
    higher_is_better: ClassVar[bool] = False
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __call__(self, heat: Tensor) -> Tensor:
        """Return the measure of each image (B,), NaN where it is not defined.

        Raises `ValueError` for heat that is negative or not (B, H, W).
        """
        return by_chunks(lambda rows: self.of(Maps(rows)), heat)

    def of(self, maps: Maps) -> Tensor:
        """Return the measure of maps that other measures look at too."""
        return torch.where(maps.peak > 0, self._measure(maps).float(), torch.nan)

    @abstractmethod
    def _measure(self, maps: Maps) -> Tensor:
        """Return (B,); values of undefined images do not matter."""


@MEASURES.register("gini")
@dataclass(frozen=True)
class Gini(Sharpness):
    """Measure the Gini index of the map's values, in [0, 1): higher is sharper.

    1 - 2 sum_k (h_k / sum h) (P - k + 1/2) / P over the P values in rising order, k from 1
    (Hurley and Rickard 2009, Comparing measures of sparsity, arXiv 0811.4706; on maps: Chalasani
    et al. 2020, arXiv 1810.06583). 0 for a map that is the same everywhere, 1 - 1 / P for one
    pixel. The place of the values does not matter: noise scattered over the image may be sharp.
    """

    higher_is_better: ClassVar[bool] = True

    def _measure(self, maps: Maps) -> Tensor:
        values = maps.values.double()  # from large to small
        count = values.shape[1]
        share = torch.arange(count, dtype=torch.float64, device=values.device).add_(0.5) / count
        return (1 - 2 * (values @ share) / values.sum(1)).clamp_min(0)


@MEASURES.register("entropy")
@dataclass(frozen=True)
class Entropy(Sharpness):
    """Measure the Shannon entropy of the map as a distribution over its pixels: lower is sharper.

    - sum p log p / log P with p the map divided by its sum (Shannon 1948), in [0, 1]: 0 for one
      pixel, 1 for a map that is the same everywhere. Undefined for an image of one pixel.
    """

    def _measure(self, maps: Maps) -> Tensor:
        heat = maps.unit.flatten(1)
        if heat.shape[1] == 1:
            return torch.full_like(maps.peak, torch.nan)
        total = heat.sum(1, dtype=torch.float64)
        spent = heat.clamp_min(1e-38).log_().mul_(heat).sum(1, dtype=torch.float64)
        return ((total.log() - spent / total) / math.log(heat.shape[1])).clamp(0, 1)


@MEASURES.register("total_variation")
@dataclass(frozen=True)
class TotalVariation(Sharpness):
    """Measure how much the map changes from pixel to pixel, in [0, 4]: lower is less noisy.

    The sum of absolute differences between neighbours in rows and in columns (Rudin, Osher and
    Fatemi 1992, in the anisotropic form), over the map's sum. 0 for a map that is the same
    everywhere, 4 for pixels that stand alone, about 4/3 for uniform noise. The unit is one over
    a pixel: the same map at twice the resolution has half of it.
    """

    limits: ClassVar[tuple[float, float]] = (0.0, 4.0)

    def _measure(self, maps: Maps) -> Tensor:
        heat = maps.unit
        rows = (heat[:, 1:] - heat[:, :-1]).abs_().sum((1, 2))
        columns = (heat[:, :, 1:] - heat[:, :, :-1]).abs_().sum((1, 2))
        return ((rows + columns) / heat.sum((1, 2))).clamp_max(4)


@MEASURES.register("high_frequency")
@dataclass(frozen=True)
class HighFrequency(Sharpness):
    """Measure the share of the map's spectral energy at high frequencies: lower is less noisy.

    The energy of the discrete Fourier transform at radial frequencies above `above`, in cycles a
    pixel, over that at all frequencies but zero; in [0, 1]. The default is half the highest
    frequency along a side, a wave of 4 pixels. White noise has the share of the spectrum's area,
    1 - pi above^2: 0.80 by default. Undefined for a map that is the same everywhere. The energy
    of the jump between opposite edges counts, as in every transform of an image that is not
    periodic. (The spectrum as a sign of noise in maps: Kim et al. 2019, arXiv 1902.04893, find
    their noise by eye; this number is ours.)
    """

    above: float = 0.25

    def __post_init__(self) -> None:
        if not 0 <= self.above < math.sqrt(0.5):
            raise ValueError(f"above is {self.above}, and must lie in [0, 0.707) cycles a pixel")

    def _measure(self, maps: Maps) -> Tensor:
        heat, (height, width) = maps.unit, maps.unit.shape[1:]
        spectrum = torch.fft.rfft2(heat - heat.mean((1, 2), keepdim=True))  # (B, H, W // 2 + 1)
        energy = (spectrum * spectrum.conj()).real.flatten(1)
        high, whole = (energy @ part for part in _parts(height, width, self.above, heat.device))
        return torch.where(maps.varied, high / whole, torch.nan).clamp(0, 1)


@lru_cache(maxsize=8)
def _parts(height: int, width: int, above: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return how often each number of a real transform counts: above the cutoff, and in all."""
    radius = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)[None])
    times = torch.full_like(radius, 2.0)  # the other half of the spectrum is its mirror image
    times[:, 0] = 1
    if width % 2 == 0:
        times[:, -1] = 1
    times[0, 0] = 0
    times = times.to(device)
    return (times * (radius > above).to(device)).flatten(), times.flatten()
