"""Overlap of the mask with the region that the map outlines: localisation as segmentation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.evaluation.measures import MEASURES
from diascope.evaluation.measures.localisation import Localisation
from diascope.evaluation.measures.maps import Maps
from diascope.evaluation.measures.ranks import count

_TIE = 1e-9  # relative difference of variances that are taken as equal


@MEASURES.register("iou_otsu")
@dataclass(frozen=True)
class OtsuOverlap(Localisation):
    """Measure the intersection over union of the mask and what lies above Otsu's threshold.

    Otsu 1979 (A threshold selection method from gray-level histograms, IEEE Trans. SMC 9): the
    threshold that parts the values into two classes of greatest variance between them. It is
    sought among all distinct values, without a histogram; of equal ones the highest counts. In
    [0, 1], higher is better.

    A map that is the same everywhere has no threshold and outlines the whole image, so that chance
    is the mask's share of the area. It is the most that a region placed blindly can expect: one
    that takes a share q of the area has about q a / (q + a - q a), less than a.
    """

    def _measure(self, maps: Maps, mask: Tensor) -> Tensor:
        found, taken = maps.ranking.found, _otsu(maps)[:, None]  # (B, P), (B, 1)
        inside = found.gather(1, taken - 1)
        return (inside / (taken + found[:, -1:] - inside))[:, 0]


@MEASURES.register("iou_area")
@dataclass(frozen=True)
class AreaOverlap(Localisation):
    """Measure the intersection over union of the mask and as many of the map's largest pixels.

    The region has the mask's area, so that the measure depends on the order of the values alone.
    Of equal values at its edge each counts by the share of them that fits in, so that ties are
    not decided by the order of the pixels. In [0, 1], higher is better.

    Chance is a / (2 - a) for a mask that takes a share a of the area: what a map has that is the
    same everywhere, and, to within one part in the mask's number of pixels, what a region of
    that area placed blindly expects.
    """

    def _measure(self, maps: Maps, mask: Tensor) -> Tensor:
        values, found = maps.values, maps.ranking.found
        area = found[:, -1:].long()  # (B, 1)
        edge = values.gather(1, (area - 1).clamp_min(0))
        above, least = count(values > edge)[:, None], count(values >= edge)[:, None]
        surely = torch.where(above > 0, found.gather(1, (above - 1).clamp_min(0)), 0)
        tied = found.gather(1, least - 1) - surely
        inside = surely + tied * ((area - above) / (least - above))
        return (inside / (2 * area - inside))[:, 0]

    def _by_area(self, share: Tensor) -> Tensor:
        return share / (2 - share)


def _otsu(maps: Maps) -> Tensor:
    """Return how many pixels lie above Otsu's threshold, (B,) int64; all where there is none.

    With n pixels above, of sum s, the variance between the classes is, but for a factor,
    (s - n mean)^2 / (n (P - n)).
    """
    size = maps.values.shape[1]
    if size == 1:
        return torch.ones_like(maps.peak, dtype=torch.int64)
    rank = maps.ranking.rank[:-1].double()
    sums = maps.values.cumsum(1, dtype=torch.float64)  # (B, P)
    apart = torch.addcmul(sums[:, :-1], rank, sums[:, -1:] / -size).square_()  # (B, P - 1)
    apart.mul_(1 / (rank * (size - rank))).masked_fill_(maps.ties, 0)
    most = apart.amax(1, keepdim=True)
    best = torch.where(apart >= most * (1 - _TIE), maps.ranking.rank[:-1], size).amin(1)
    return torch.where(most[:, 0] > 0, best, size)
