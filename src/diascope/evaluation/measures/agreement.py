"""Agreement: how alike are two maps of the same image?

Between training seeds, between an image and itself under noise, between clean and attacked. A
measure is called with `heat` and `other`, (B, H, W) both, not negative, in either order, and
returns float32 (B,); higher is more stable. Each image is measured by itself, and the scale of
neither map matters. Where either map is the same everywhere, or not finite, it is NaN: such a
map says nothing that another could agree with.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import torch
from torch import Tensor

from diascope.evaluation.measures import MEASURES
from diascope.evaluation.measures.maps import Maps, by_chunks
from diascope.evaluation.measures.ranks import count, rank_correlation

WINDOW, SIGMA = 11, 1.5
PERCENTILE = 99.0  # of `render`
_C1, _C2 = 0.01**2, 0.03**2  # for values in [0, 1]
_BAND = 32  # pixels of a line that one product filters


class Agreement(ABC):
    """The base of the family: checks the input and leaves undefined images out."""

    family: ClassVar[str] = "agreement"
    higher_is_better: ClassVar[bool] = True
    limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    def __call__(self, heat: Tensor, other: Tensor) -> Tensor:
        """Return the measure of each image (B,), NaN where it is not defined.

        Raises `ValueError` for shapes that differ and for negative heat.
        """
        return by_chunks(
            lambda *rows: self.of(*(Maps(each.to(heat.device)) for each in rows)), heat, other
        )

    def of(self, maps: Maps, others: Maps) -> Tensor:
        """Return the measure of maps, of one device, that other measures look at too."""
        if maps.heat.shape != others.heat.shape:
            shapes = tuple(maps.heat.shape), tuple(others.heat.shape)
            raise ValueError(f"maps of shapes {shapes[0]} and {shapes[1]} do not pair")
        return torch.where(maps.varied & others.varied, self._measure(maps, others), torch.nan)

    @abstractmethod
    def _measure(self, maps: Maps, others: Maps) -> Tensor:
        """Return (B,); values of undefined images do not matter."""


@MEASURES.register("spearman")
@dataclass(frozen=True)
class Spearman(Agreement):
    """Measure Spearman's rank correlation of the two maps' pixels, in [-1, 1].

    Equal values share the mean of their ranks. 1: the same order; 0: unrelated; -1: reversed.
    (Adebayo et al. 2018, Sanity checks for saliency maps, arXiv 1810.03292, section 4.)
    """

    def _measure(self, maps: Maps, others: Maps) -> Tensor:
        return rank_correlation(maps.ranks, others.ranks)


@MEASURES.register("ssim")
@dataclass(frozen=True)
class Ssim(Agreement):
    """Measure the structural similarity of the two maps as they are rendered, in [-1, 1].

    Wang et al. 2004 (Image quality assessment, IEEE Trans. Image Processing 13, equation 13 and
    section III.C): Gaussian window of 11 x 11 pixels and sigma 1.5, C1 = 0.01^2, C2 = 0.03^2, the
    mean over all windows that lie in the image whole. 1: the same picture. Each map is scaled as
    `render` does, capped at its 99th percentile and divided by it: divided by their maxima, maps
    of a few strong pixels would be black, and alike. Undefined for a side under 11 pixels. It
    compares at one scale of pixels: compare numbers of one image size only.
    """

    def _measure(self, maps: Maps, others: Maps) -> Tensor:
        if min(maps.heat.shape[1:]) < WINDOW:
            return torch.full_like(maps.peak, torch.nan)
        a, b = (_rendered(each).transpose(0, 1) for each in (maps, others))  # (H, B, W)
        both = a.new_empty(len(a), 4, *a.shape[1:])
        both[:, 0], both[:, 1] = a, b
        torch.mul(a, b, out=both[:, 2])
        torch.mul(a, a, out=both[:, 3]).addcmul_(b, b)
        mean_a, mean_b, product, squares = _smoothed(both).unbind(1)  # (H - 10, B, W - 10) each
        means, sizes = mean_a * mean_b, mean_a.square().addcmul_(mean_b, mean_b)
        alike = (2 * means + _C1).mul_((product - means).mul_(2).add_(_C2))
        most = (sizes + _C1).mul_((squares - sizes).add_(_C2))
        return alike.div_(most).mean((0, 2)).clamp_(-1, 1)


@MEASURES.register("top_overlap")
@dataclass(frozen=True)
class TopOverlap(Agreement):
    """Measure how far the two maps' largest pixels are the same, in [0, 1].

    The intersection over union (Jaccard 1912) of the `share` of the pixels where each is largest.
    Of equal values at the edge each belongs to the region by the share of them that fits in. Two
    unrelated maps have about share / (2 - share): 0.053 by default. (Top-k intersection of maps:
    Ghorbani et al. 2019, Interpretation of neural networks is fragile, arXiv 1710.10547.)
    """

    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)

    share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share is {self.share}, and must lie between 0 and 1")

    def _measure(self, maps: Maps, others: Maps) -> Tensor:
        size = max(1, round(self.share * maps.values.shape[1]))
        (above_a, tied_a, part_a), (above_b, tied_b, part_b) = (
            self._region(each, size) for each in (maps, others)
        )
        common = (
            count(above_a & above_b)
            + count(above_a & tied_b) * part_b
            + count(tied_a & above_b) * part_a
            + count(tied_a & tied_b) * torch.minimum(part_a, part_b)
        )
        return common / (2 * size - common)

    def _region(self, maps: Maps, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Return the pixels above the edge, those at it, (B, P), and the part that fits in (B,)."""
        heat, edge = maps.heat.flatten(1), maps.values[:, size - 1 : size]
        above, tied = heat > edge, heat == edge
        return above, tied, (size - count(above)) / count(tied)


def _rendered(maps: Maps) -> Tensor:
    """Return the maps as `render` scales them, (B, H, W); zero for those without a maximum."""
    values = maps.values
    place = (1 - PERCENTILE / 100) * (values.shape[1] - 1)
    upper, lower = values[:, int(place)], values[:, math.ceil(place)]
    cap = torch.lerp(upper, lower, place - int(place))
    cap = torch.where(cap > 0, cap, maps.peak)
    return (maps.heat / torch.where(cap > 0, cap, 1.0)[:, None, None]).clamp_max_(1)


def _smoothed(x: Tensor) -> Tensor:
    """Return Gaussian means of maps (H, ..., W) where the window fits: (H - 10, ..., W - 10).

    Along a side by products with a band matrix, `_BAND` results of each: the maps lie so that both
    sides are matrices as they stand, and it is many times faster than a convolution.
    """
    band = _band(x.device)
    height, *middle, width = x.shape
    lines = x.reshape(-1, width)
    columns = lines.new_empty(len(lines), width - WINDOW + 1)
    for out, reach in _blocks(width):
        part = lines[:, reach]
        torch.mm(part, band[: part.shape[1], : out.stop - out.start], out=columns[:, out])
    columns = columns.view(height, math.prod(middle) * columns.shape[1])
    rows = columns.new_empty(height - WINDOW + 1, columns.shape[1])
    for out, reach in _blocks(height):
        part = columns[reach]
        torch.mm(band[: len(part), : len(rows[out])].T, part, out=rows[out])
    return rows.view(len(rows), *middle, width - WINDOW + 1)


def _blocks(side: int) -> Iterator[tuple[slice, slice]]:
    """Yield slices of the results along a side, and of the pixels that they depend on."""
    for start in range(0, side - WINDOW + 1, _BAND):
        stop = min(start + _BAND, side - WINDOW + 1)
        yield slice(start, stop), slice(start, stop + WINDOW - 1)


@lru_cache(maxsize=4)
def _band(device: torch.device) -> Tensor:
    """Return the band matrix of the window, (_BAND + 10, _BAND)."""
    place = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    weights = torch.exp(-0.5 * (place / SIGMA).square())
    band = torch.zeros(_BAND + WINDOW - 1, _BAND, dtype=torch.float64)
    for k in range(_BAND):
        band[k : k + WINDOW, k] = weights / weights.sum()
    return band.to(device, torch.float32)
