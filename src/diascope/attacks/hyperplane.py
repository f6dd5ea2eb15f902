"""The nearest point of a hyperplane within the pixel bounds, for a batch of images."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.attacks.threat import Norm, Threat

_ROUNDS = 64  # Newton ends in finitely many rounds, seldom more than ten
_FAR = 1e30


def step_to_hyperplane(norm: Norm, x: Tensor, gradient: Tensor, value: Tensor) -> Tensor:
    """Return the smallest step from `x`, within the bounds, to where a linear function is zero.

    The function is value (B,) at x (B, C, H, W) and has `gradient` (B, C, H, W). The step solves
    min |d|_p such that value + <gradient, d> = 0 and x + d in [0, 1] (Croce and Hein 2020, FAB,
    section 2.1); where no point of the box does, it goes to the corner that comes nearest.
    Pixels without a gradient stay.

    Each pixel moves against the value by an amount in [0, room]. L-inf: min(t, room); L2:
    min(t |g|, room), for the t that just suffices; L1: the steepest pixels first.
    """
    low, high = Threat.bounds
    slope = gradient.flatten(1)  # (B, n)
    slope = slope / slope.abs().amax(1, keepdim=True).clamp_min(1e-30)
    need = (value.abs() / gradient.abs().flatten(1).amax(1).clamp_min(1e-30))[:, None]
    way = -torch.where(value < 0, -1.0, 1.0).to(x.dtype)[:, None] * slope.sign()
    flat = x.flatten(1)
    room = torch.where(way > 0, high - flat, flat - low).clamp_min(0)
    weight = slope.abs()
    if norm == "l1":
        amount = _steepest_first(weight, room, need)
    else:
        gain = weight if norm == "l2" else (weight > 0).to(x.dtype)
        amount = torch.minimum(_level(weight, gain, room, need) * gain, room)
    return (way * amount).view_as(x)


def _level(weight: Tensor, gain: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Return the t (B, 1) with sum_i weight_i min(t gain_i, room_i) = need; all others are (B, n).

    The sum is concave and piecewise linear in t, so Newton's method from zero rises to the root
    and stands on it once no further pixel meets its bound. A very large t if there is no root.
    """
    t, rate, tolerance = torch.zeros_like(need), weight * gain, 16 * torch.finfo(need.dtype).eps
    for turn in range(_ROUNDS):
        reach = t * gain
        left = need - (weight * torch.minimum(reach, room)).sum(1, keepdim=True)
        rise = (rate * (reach < room)).sum(1, keepdim=True)
        step = torch.where(rise > 0, left / rise.clamp_min(1e-30), _FAR).clamp_min(0)
        step = torch.where(left > 0, step, 0)
        t = (t + step).clamp_max(_FAR)
        if turn % 4 == 3 and not bool((step > tolerance * t).any()):
            break
    return t


def _steepest_first(weight: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Return amounts in [0, room] with sum weight * amount = need, the largest weights first."""
    order = weight.argsort(dim=1, descending=True, stable=True)
    steep, wide = weight.gather(1, order), room.gather(1, order)
    gained = steep * wide
    before = gained.cumsum(1) - gained
    amount = torch.minimum(((need - before) / steep.clamp_min(1e-30)).clamp_min(0), wide)
    return torch.zeros_like(weight).scatter_(1, order, amount * (steep > 0))
