"""The order of the pixels of maps: sorted by digits, and ranked with ties shared."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def order(values: Tensor) -> Tensor:
    """Return the places (B, P) int64 of each row's values, float32, from large to small.

    Equal values, -0.0 and 0.0 among them, stay in the order of their places. On the CPU by two
    digits of 16 bits, each of which numpy sorts in linear time, on any processor alike: a third of
    the time of a sort of the whole numbers with their places where that gains nothing from vector
    instructions, and about the same where it does.
    """
    if values.device.type != "cpu":
        return _order_by_torch(values)
    bits = (values.float() + 0).contiguous().view(torch.int32)  # -0.0 + 0 is 0.0
    bits = bits ^ ~(bits >> 31) & 0x7FFF_FFFF  # of numbers that are not negative: turned about
    low = _order_of_digits(bits.short())
    high = _order_of_digits((bits >> 16).short().gather(1, low))
    return low.gather(1, high)


def _order_by_torch(values: Tensor) -> Tensor:
    return values.sort(dim=1, stable=True, descending=True).indices


def _order_of_digits(digits: Tensor) -> Tensor:
    """Return the places (B, P) int64 of int16, which stand for uint16, from small to large."""
    return torch.from_numpy(digits.numpy().view(np.uint16).argsort(axis=1, kind="stable"))


def ties(ordered: Tensor) -> Tensor:
    """Return whether an equal value follows, at each place but the last: (B, P - 1) bool."""
    return ordered[:, 1:] == ordered[:, :-1]


def runs(tied: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return where runs of equal values stand in rows of P, counted along all rows.

    tied (B, P - 1): whether a place and the next hold equal values. Of each run of at least two:
    its first place and its number of further places, (R,) each; and all those further places, in
    order. The cost grows with the ties alone.
    """
    row, column = tied.nonzero(as_tuple=True)
    later = row * (tied.shape[1] + 1) + column + 1
    if not len(later):
        return later, later, later
    heads = torch.cat([later.new_ones(1), (later.diff() != 1).long()]).nonzero()[:, 0]
    ends = torch.cat([heads[1:], heads.new_tensor([len(later)])])
    return later[heads] - 1, ends - heads, later


def centred_ranks(values: Tensor, inside: Tensor | None = None) -> Tensor:
    """Return twice the rank of each pixel, from 1 for the least, less the mean: (B, P) float64.

    values (B, P), finite. Ranks are those among the pixels inside, if given; outside they
    are 0. Equal values share the mean of their ranks.
    """
    values = values.float()
    keys = values if inside is None else torch.where(inside, values, -torch.inf)
    places = order(keys)
    found = ranks_in_order(places, ties(keys.gather(1, places)), inside)
    return found if inside is None else found * inside


def ranks_in_order(places: Tensor, tied: Tensor, inside: Tensor | None = None) -> Tensor:
    """Return what `centred_ranks` does of values whose `order` and `ties` are known.

    The pixels inside, if given, come first in that order; what others have does not matter. Of n
    equal values the first has the doubled rank d at first, and all have d - (n - 1) then.
    """
    size = places.shape[1]
    among = places.new_full((len(places),), size) if inside is None else count(inside)
    place = torch.arange(2, 2 * size + 1, 2, dtype=torch.float64, device=places.device)
    doubled = (among + 1)[:, None] - place  # (B, P)
    first, more, later = runs(tied)
    flat = doubled.view(-1)
    flat[first] -= more
    flat[later] = flat[first].repeat_interleave(more)
    return torch.empty_like(doubled).scatter_(1, places, doubled)


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Return the correlation (B,) of ranks that `centred_ranks` returns; NaN where all are one.

    With averaged ranks this is Spearman's coefficient.
    """
    spread = (torch.linalg.vecdot(a, a) * torch.linalg.vecdot(b, b)).sqrt()
    found = torch.linalg.vecdot(a, b) / spread
    return torch.where(spread > 0, found, torch.nan).clamp(-1, 1).float()


def count(pixels: Tensor) -> Tensor:
    """Return how many of the pixels (B, P) bool are True, (B,) int64; fast, on the CPU too."""
    if pixels.device.type != "cpu":
        return pixels.count_nonzero(1)
    return torch.tensor([np.count_nonzero(row) for row in pixels.numpy()], dtype=torch.int64)
