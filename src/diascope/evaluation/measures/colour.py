"""Colour: does the map follow what the image shows?

A measure is called with `heat` (B, H, W), not negative, the image `x` (B, C, H, W) in [0, 1] and
`mask` (B, H, W) bool, and returns float32 (B,). Each image is measured by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.evaluation.measures import MEASURES
from diascope.evaluation.measures.maps import Maps, by_chunks
from diascope.evaluation.measures.ranks import centred_ranks, rank_correlation

_ZERO = 1e-9  # a variance below it is that of equal colours: 8-bit steps give at least 1e-8


@MEASURES.register("colour_variation")
@dataclass(frozen=True)
class ColourVariation:
    """Measure whether the map is larger where the lesion's colour varies, in [-1, 1].

    Spearman's rank correlation, over the pixels of the mask, of the map with `colour_variance` in a
    window of `window` pixels: what P1 reads from its figure 1, that a robust model's maps follow
    the variation of colour within the lesion, as a number. Chance is 0; higher is closer.
    Only pixels of the mask count in a window, so that the edge between lesion and skin is not
    taken for variation within the lesion. Undefined for an empty mask, for a map or a colour
    that is the same throughout the mask, and for a map that is not finite.
    """

    family: ClassVar[str] = "colour"
    higher_is_better: ClassVar[bool] = True
    limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    window: int = 9

    def __post_init__(self) -> None:
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"window is {self.window}, and must be odd, 3 or more")

    def __call__(self, heat: Tensor, x: Tensor, mask: Tensor) -> Tensor:
        """Return the measure of each image (B,), NaN where it is not defined.

        Raises `ValueError` for shapes that do not fit, a mask that is not bool, negative heat.
        """
        return by_chunks(lambda maps, *rest: self.of(Maps(maps, rest[1]), rest[0]), heat, x, mask)

    def of(self, maps: Maps, x: Tensor) -> Tensor:
        """Return the measure of maps with masks that other measures look at too."""
        if maps.mask is None:
            raise ValueError("these maps have no masks")
        if x.ndim != 4 or x[:, 0].shape != maps.heat.shape:
            shapes = tuple(x.shape), tuple(maps.heat.shape)
            raise ValueError(f"images {shapes[0]} do not fit maps {shapes[1]}")
        variance = colour_variance(x.to(maps.heat.device), self.window, maps.mask)
        inside = maps.mask.flatten(1)
        a, b = (centred_ranks(each.flatten(1), inside) for each in (maps.heat, variance))
        return torch.where(maps.finite, rank_correlation(a, b), torch.nan)


def colour_variance(x: Tensor, window: int, mask: Tensor | None = None) -> Tensor:
    """Return the local variance of the colour, (B, H, W) float32: that of each channel, summed.

    x: (B, C, H, W) in [0, 1]. The variance about the mean of a square of `window` pixels a side
    around each pixel, of those that lie in the image and, with a mask (B, H, W), inside it; 0
    where there are none. `window` is odd.
    """
    weight = x.new_ones(len(x), 1, *x.shape[2:]) if mask is None else mask[:, None]
    weight = weight.double()
    x = x.detach().double() * weight
    count = _box(weight, window).clamp_min(0.5 / window**2)  # none within: no pixel of the mask
    mean = _box(x, window) / count
    variance = (_box(x * x, window) / count - mean.square()).sum(1)
    return torch.where(variance > _ZERO, variance, 0.0).float()


def _box(x: Tensor, window: int) -> Tensor:
    """Return the sums (B, C, H, W) over the window, as shares of its area."""
    half = window // 2
    x = F.avg_pool2d(x, (1, window), 1, (0, half))
    return F.avg_pool2d(x, (window, 1), 1, (half, 0))
