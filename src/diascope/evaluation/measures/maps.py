"""Heat maps as measures see them: checked once, and sorted at most once, however many look."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

_INDEX = np.uint64(0xFFFF_FFFF)
_SIZE_BITS = np.uint32(0x7FFF_FFFF)  # of a float32, without its sign
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
    """The pixels of each map from large to small.

    `values` (B, P) order as the map's do, and are equal where the map's are; `inside` (B, P)
    int32 is 1 for pixels of the mask, in the same order. `rank` (P,) counts from 1.
    """

    values: Tensor
    inside: Tensor

    @cached_property
    def rank(self) -> Tensor:
        """The number of pixels up to each place, (P,)."""
        count, device = self.values.shape[1], self.values.device
        return torch.arange(1, count + 1, dtype=torch.int32, device=device)

    @cached_property
    def found(self) -> Tensor:
        """How many pixels of the mask are among the first, at each place: (B, P) int32."""
        return self.inside.cumsum(1, dtype=torch.int32)

    @cached_property
    def ties(self) -> Tensor:
        """Whether an equal value follows, at each place but the last: (B, P - 1)."""
        return self.values[:, 1:] == self.values[:, :-1]


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
    def ranking(self) -> Ranking:
        """The pixels from large to small, with the mask's."""
        if self.mask is None:
            raise ValueError("these maps have no masks")
        return Ranking(*descending(self.heat.flatten(1), self.mask.flatten(1)))

    @cached_property
    def values(self) -> Tensor:
        """The values from large to small, (B, P) float32."""
        if self.mask is not None:
            values = self.ranking.values
            return values if values.is_floating_point() else values.view(torch.float32)
        if self.heat.device.type != "cpu":
            return self.heat.flatten(1).sort(1, descending=True).values
        bits = _bits(self.heat.flatten(1))
        bits.sort(axis=1)
        return torch.from_numpy(bits[:, ::-1].copy()).view(torch.float32)

    @cached_property
    def ranks(self) -> Tensor:
        """Twice the rank of each pixel less the mean, (B, P) float64: `centred_ranks`."""
        return centred_ranks(self.heat.flatten(1))


def descending(heat: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of `heat` (B, P) from large to small, and the mask, 0 or 1, in the same order.

    On the CPU the bits of a float that is not negative, which order as integers, are packed with
    the mask's into one integer, which numpy sorts some 20 times faster than torch sorts pairs;
    the values returned are those bits.
    """
    if heat.device.type != "cpu":
        values, order = heat.sort(1, descending=True)
        return values, mask.gather(1, order).int()
    packed = heat.contiguous().numpy().view(np.uint32) << 1  # it drops the sign of a -0.0
    packed |= mask.numpy()
    packed.sort(axis=1)
    packed = packed[:, ::-1]
    bits, chosen = packed >> 1, packed & 1
    return torch.from_numpy(bits.view(np.int32)), torch.from_numpy(chosen.view(np.int32))


def count(pixels: Tensor) -> Tensor:
    """Return how many of the pixels (B, P) bool are True, (B,) int64; fast, on the CPU too."""
    if pixels.device.type != "cpu":
        return pixels.count_nonzero(1)
    return torch.tensor([np.count_nonzero(row) for row in pixels.numpy()], dtype=torch.int64)


def centred_ranks(values: Tensor, inside: Tensor | None = None) -> Tensor:
    """Return twice the rank of each pixel less the mean rank, (B, P) float64.

    values (B, P), not negative. Ranks are those among the pixels inside, if given; outside they
    are 0. Equal values share the mean of their ranks: a run of n whose first has the rank r has
    r + (n - 1) / 2. On the CPU value and place are packed into one integer, which numpy sorts
    three times faster than it finds an order.
    """
    size = values.shape[1]
    ordered = _ordered if values.device.type == "cpu" else _ordered_by_torch
    order, ties = ordered(values, inside)
    among = order.new_full((len(values),), size) if inside is None else count(inside)
    place = torch.arange(2, 2 * size + 1, 2, dtype=torch.float64, device=values.device)
    doubled = place - (among + 1)[:, None]  # (B, P)
    first, more, later = runs(ties)
    flat = doubled.view(-1)
    flat[first] += more
    flat[later] = flat[first].repeat_interleave(more)
    found = torch.empty_like(doubled).scatter_(1, order, doubled)
    return found if inside is None else found * inside


def _ordered(values: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return the places (B, P) from small to large, those outside last, and the ties."""
    bits = _bits(values)
    if inside is not None:
        bits[~inside.numpy()] = _INDEX
    packed = np.left_shift(bits, 32, dtype=np.uint64)
    packed |= np.arange(values.shape[1], dtype=np.uint64)
    packed.sort(axis=1)
    order = torch.from_numpy((packed & _INDEX).view(np.int64))
    packed >>= np.uint64(32)
    return order, torch.from_numpy(packed[:, 1:] == packed[:, :-1])


def _ordered_by_torch(values: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return what `_ordered` does, on any device."""
    keys, order = (values if inside is None else torch.where(inside, values, torch.inf)).sort(1)
    return order, keys[:, 1:] == keys[:, :-1]


def runs(ties: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where runs of equal values stand in rows of P, counted along all rows.

    ties (B, P - 1): whether a place and the next hold equal values. Of each run of at least two:
    its first place and its number of further places, (R,) each; and all those further places, in
    order. The cost grows with the ties alone.
    """
    row, column = ties.nonzero(as_tuple=True)
    later = row * (ties.shape[1] + 1) + column + 1
    if not len(later):
        return later, later, later
    heads = torch.cat([later.new_ones(1), (later.diff() != 1).long()]).nonzero()[:, 0]
    ends = torch.cat([heads[1:], heads.new_tensor([len(later)])])
    return later[heads] - 1, ends - heads, later


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return the correlation (B,) of ranks that `centred_ranks` returns; NaN where all are one.

    With averaged ranks this is Spearman's coefficient.
    """
    spread = (torch.linalg.vecdot(a, a) * torch.linalg.vecdot(b, b)).sqrt()
    found = torch.linalg.vecdot(a, b) / spread
    return torch.where(spread > 0, found, torch.nan).clamp(-1, 1).float()


def _bits(values: Tensor) -> np.ndarray[tuple[int, ...], np.dtype[np.uint32]]:
    """Return a new array of integers that order as floats that are not negative do."""
    bits: np.ndarray[tuple[int, ...], np.dtype[np.uint32]]
    bits = values.contiguous().numpy().view(np.uint32) & _SIZE_BITS
    return bits
