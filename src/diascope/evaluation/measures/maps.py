"""Heat maps as measures see them: checked once, and sorted at most once, however many look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from diascope.evaluation.measures.ranks import order, ranks_in_order, ties

_PIXELS = {"cpu": 1 << 19}  # measured at once: what stays in a core's cache
_PIXELS_ELSEWHERE = 1 << 24


def chunks(maps: Tensor) -> Iterator[slice]:
    """Yield slices of some rows of (B, H, W), small enough for memory; one of no rows for none."""
    pixels = max(1, maps[:1].numel())
    rows = max(1, _PIXELS.get(maps.device.type, _PIXELS_ELSEWHERE) // pixels)
    for start in range(0, max(1, len(maps)), rows):
        yield slice(start, start + rows)


def by_chunks(measure: Callable[..., Tensor], heat: Tensor, *others: Tensor) -> Tensor:
    """Return `measure(heat, *others)` (B,), computed some images at once.

    Tensors whose first sizes differ go to `measure` whole, which refuses them.
    """
    if heat.ndim == 0 or any(other.shape[:1] != heat.shape[:1] for other in others):
        return measure(heat, *others)
    parts = [measure(heat[rows], *(other[rows] for other in others)) for rows in chunks(heat)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


@dataclass(frozen=True, eq=False)
class Ranking:
    """The pixels of each map from large to small, as the mask sees them.

    `inside` (B, P) int32 is 1 for pixels of the mask. `rank` (P,) counts from 1.
    """

    inside: Tensor

    @cached_property
    def rank(self) -> Tensor:
        """The number of pixels up to each place, (P,)."""
        count, device = self.inside.shape[1], self.inside.device
        return torch.arange(1, count + 1, dtype=torch.int32, device=device)

    @cached_property
    def found(self) -> Tensor:
        """How many pixels of the mask are among the first, at each place: (B, P) int32."""
        return self.inside.cumsum(1, dtype=torch.int32)


class Maps:
    """Heat maps (B, H, W), not negative, with masks (B, H, W) bool or none.

    `heat` is float32, zero throughout for images that are not `finite` (B,). Raises `ValueError`
    for shapes that do not fit, a mask that is not bool, and negative heat. What measures share
    is computed when it is first asked for and kept with the object.
    """

    def __init__(self, heat: Tensor, mask: Tensor | None = None) -> None:
        if mask is not None and (heat.shape != mask.shape or mask.dtype != torch.bool):
            raise ValueError(
                f"heat {tuple(heat.shape)} and mask {tuple(mask.shape)} {mask.dtype}: "
                "expected (B, H, W) both, the mask bool"
            )
        if heat.ndim != 3 or not heat.is_floating_point():
            raise ValueError(f"heat {tuple(heat.shape)} {heat.dtype}: expected floats (B, H, W)")
        heat = heat.detach().float()
        flat = heat.flatten(1) if len(heat) else heat.new_zeros(0, 1)
        low, high = flat.amin(1), flat.amax(1)  # both NaN where there is one
        self.finite = low.isfinite() & high.isfinite()
        if not self.finite.all():
            heat = torch.where(self.finite[:, None, None], heat, 0.0)
        if (low[self.finite] < 0).any():
            raise ValueError("heat is negative: render a signed attribution first")
        self.heat, self.mask = heat, None if mask is None else mask.to(heat.device)
        self.peak = torch.where(self.finite, high, 0.0)  # (B,)
        self.varied = self.finite & (low < high)  # (B,), not the same everywhere

    @cached_property
    def unit(self) -> Tensor:
        """The maps divided by their maxima, (B, H, W) in [0, 1]; zero where there is nothing."""
        return self.heat / torch.where(self.peak > 0, self.peak, 1.0)[:, None, None]

    @cached_property
    def outlined(self) -> Tensor:
        """Whether the mask is there, and is neither empty nor the whole image: (B,)."""
        if self.mask is None:
            return torch.zeros_like(self.finite)
        bytes_ = self.mask.flatten(1).view(torch.uint8)  # many times faster than any and all
        return (bytes_.amax(1) > bytes_.amin(1)) if len(bytes_) else self.finite

    @cached_property
    def order(self) -> Tensor:
        """The places of the pixels from large to small, (B, P) int64: `ranks.order`."""
        return order(self.heat.flatten(1))

    @cached_property
    def values(self) -> Tensor:
        """The values from large to small, (B, P) float32."""
        return self.heat.flatten(1).gather(1, self.order)

    @cached_property
    def ties(self) -> Tensor:
        """Whether an equal value follows, at each place but the last: (B, P - 1) bool."""
        return ties(self.values)

    @cached_property
    def ranking(self) -> Ranking:
        """The mask's pixels in the order of the map's."""
        if self.mask is None:
            raise ValueError("these maps have no masks")
        return Ranking(self.mask.flatten(1).gather(1, self.order).int())

    @cached_property
    def ranks(self) -> Tensor:
        """Twice the rank of each pixel less the mean, (B, P) float64: `centred_ranks`."""
        return ranks_in_order(self.order, self.ties)
