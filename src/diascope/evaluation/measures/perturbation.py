"""Perturbations: where they spend their energy, and how much contrast their picture has.

A measure is called with `delta` (B, C, H, W), adversarial image less original, and `mask`
(B, H, W) bool or None, and returns float32 (B,). Each image is measured by itself, whatever the
size of its perturbation: a perturbation ten times as large scores the same. A perturbation that
is zero everywhere, or not finite, has NaN.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from diascope.evaluation.measures import MEASURES
from diascope.evaluation.measures.localisation import MassInside


class PerturbationMeasure(ABC):
    """The base of the family: checks the input and leaves undefined images out."""

    family: ClassVar[str] = "perturbation"
    higher_is_better: ClassVar[bool] = True
    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)

    def __call__(self, delta: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return the measure of each image (B,), NaN where it is not defined.

        Raises `ValueError` for a delta that is not (B, C, H, W), or a mask that does not fit it.
        """
        if delta.ndim != 4 or not delta.is_floating_point():
            raise ValueError(f"delta {tuple(delta.shape)} {delta.dtype}: expected (B, C, H, W)")
        if mask is not None and mask.shape != (len(delta), *delta.shape[2:]):
            raise ValueError(f"mask {tuple(mask.shape)} does not fit delta {tuple(delta.shape)}")
        delta = delta.detach().double()
        peak = delta.abs().flatten(1).amax(1) if delta.numel() else delta.new_ones(len(delta))
        defined = peak.isfinite() & (peak > 0)
        unit = delta / torch.where(defined, peak, 1.0)[:, None, None, None]
        unit = torch.where(defined[:, None, None, None], unit, 0.0)
        return torch.where(defined, self._measure(unit, mask).float(), torch.nan)

    @abstractmethod
    def _measure(self, delta: Tensor, mask: Tensor | None) -> Tensor:
        """Return (B,) for finite delta whose largest size is 1; undefined ones do not matter."""


@MEASURES.register("energy_inside")
@dataclass(frozen=True)
class EnergyInside(PerturbationMeasure):
    """Measure the share of the perturbation's energy that lies inside the mask, in [0, 1].

    sum of delta^2 over channels and the mask, over the sum of delta^2. Chance, for a perturbation
    spread evenly, is the mask's share of the area. Higher: the attack works on what the mask
    outlines, so that the model looks there (Wasserman 2022, section 5.1, sees the lesion's shape
    in perturbations by eye; Ma et al. 2021, arXiv 1907.10456, find them outside the salient
    region). NaN for an empty mask and for a mask of the whole image, as in `Localisation`.
    """

    def _measure(self, delta: Tensor, mask: Tensor | None) -> Tensor:
        if mask is None:
            return delta.new_full((len(delta),), torch.nan)
        return MassInside()(delta.square().sum(1), mask.bool())

    def chance(self, mask: Tensor) -> Tensor:
        """Return what a perturbation that is the same everywhere scores, (B,)."""
        return MassInside().chance(mask.bool())


@MEASURES.register("picture_contrast")
@dataclass(frozen=True)
class PictureContrast(PerturbationMeasure):
    """Measure the root-mean-square contrast of the perturbation's picture, in [0, 0.5].

    The standard deviation, over pixels and channels, of the perturbation min-max scaled to [0, 1]
    (`scaled`): Peli 1990 (Contrast in complex images, J. Opt. Soc. Am. A 7). Half the
    values at each end is 0.5, and so is about any one-step L-inf attack, whose every value is
    eps or -eps: compare contrasts of the same attack. Wasserman 2022 (section 5.1) finds higher
    contrast for attentive nets; higher is not better in itself.
    """

    limits: ClassVar[tuple[float, float]] = (0.0, 0.5)

    def _measure(self, delta: Tensor, mask: Tensor | None) -> Tensor:
        return scaled(delta).flatten(1).std(1, correction=0)


@MEASURES.register("level_range")
@dataclass(frozen=True)
class LevelRange(PerturbationMeasure):
    """Measure how far the least perturbed pixels lie below the most perturbed, in [0, 1].

    1 - low / high, where a pixel's level is the Euclidean length of its change over the channels,
    and low and high are the levels that a share `tail` of the pixels stays below and above.
    This is "the difference in the level of perturbation between the most- and least-perturbed
    pixels" that Wasserman 2022 (section 5.1) calls contrast, and finds greater for attentive
    nets, made relative, and without the few extremes. 0: every pixel alike.
    """

    tail: float = 0.01

    def __post_init__(self) -> None:
        if not 0 <= self.tail < 0.5:
            raise ValueError(f"tail is {self.tail}, and must lie in [0, 0.5)")

    def _measure(self, delta: Tensor, mask: Tensor | None) -> Tensor:
        level = delta.square().sum(1).sqrt().flatten(1).sort(1).values  # (B, P)
        skip = int(self.tail * level.shape[1])
        return 1 - level[:, skip] / level[:, -1 - skip]


def scaled(delta: Tensor, scaling: str = "minmax") -> Tensor:
    """Return perturbations (B, C, H, W) stretched to [0, 1], each image by itself.

    scaling: "minmax" takes its smallest value to 0 and its largest to 1 (Wasserman 2022);
    "symmetric" keeps no change at 0.5 and takes the largest size, up or down, to an end. Without
    a range, or where not finite, the result is 0.5.
    """
    if scaling not in ("minmax", "symmetric"):
        raise ValueError(f"scaling='{scaling}': minmax or symmetric")
    flat = delta.flatten(1)
    if scaling == "minmax":
        low, high = flat.amin(1), flat.amax(1)
    else:
        high = flat.abs().amax(1)
        low = -high
    low, span = (v[:, None, None, None] for v in (low, high - low))
    return torch.where(span > 0, (delta - low) / span, 0.5).nan_to_num(nan=0.5)
