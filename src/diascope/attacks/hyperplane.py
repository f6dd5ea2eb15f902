"""The nearest point of a hyperplane within the pixel bounds, for a batch of images."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.attacks.threat import Norm, Threat

_ROUNDS = 64  # Newton ends in finitely many rounds, on real models in four to six
_BLIND = 12  # rounds on a GPU, where to look whether it has ended waits
_FAR = 1e30
_MIDDLE = (Threat.bounds[0] + Threat.bounds[1]) / 2
_HALF = (Threat.bounds[1] - Threat.bounds[0]) / 2


class Hyperplane:
    """Where a linear function is zero, one for each image.

    The function is `value` (B,) at the images `at` (B, C, H, W) and has `gradient` there. least:
    where the value is so small that no pixel need move by more, it is taken to be that large: for a
    change that rounding undoes would never cross the plane.
    """

    def __init__(
        self, norm: Norm, at: Tensor, value: Tensor, gradient: Tensor, least: float = 0.0
    ) -> None:
        self.norm, self.at = norm, at.flatten(1)  # (B, n)
        slope = gradient.flatten(1)
        steepest = slope.abs().amax(1, keepdim=True).clamp_min(1e-30)
        self.slope, self.value = slope / steepest, value[:, None] / steepest
        self.weight, self.sign = self.slope.abs(), self.slope.sign()
        self.gain = self.weight if norm == "l2" else self.sign.abs()
        self.rate = self.weight * self.gain
        if least:
            room = least * (1.0 if norm == "l1" else self.rate.sum(1, keepdim=True))
            self.value = torch.copysign(self.value.abs().clamp_min(room), self.value)
        if norm == "l1":
            self.steep, self.order = self.weight.sort(dim=1, descending=True, stable=True)

    def step_from(self, x: Tensor) -> Tensor:
        """Return the smallest step from x (B, C, H, W), within the bounds, to the hyperplane.

        It solves min |d|_p such that the function at x + d is zero and x + d in [0, 1] (Croce and
        Hein 2020, FAB, section 2.1); where no point of the box does, it goes to the corner that
        comes nearest. Pixels without a gradient stay. Each pixel moves against the value by an
        amount in [0, room]: min(t, room) for L-inf, min(t |g|, room) for L2, with the t that just
        suffices; for L1 the steepest pixels move first.
        """
        return self.steps_from(x)[0]

    def steps_from(self, *points: Tensor) -> Tensor:
        """Return `step_from` each of several points of every image, (P, B, C, H, W)."""
        point = torch.stack([x.flatten(1) for x in points])  # (P, B, n)
        value = self.value + (self.slope * (point - self.at)).sum(-1, keepdim=True)  # (P, B, 1)
        side = torch.ones_like(value).masked_fill_(value >= 0, -1.0)
        way = self.sign * side
        room = (point.neg_().add_(_MIDDLE)).mul_(way).add_(_HALF).clamp_min_(0)
        if self.norm == "l1":
            amount = self._steepest_first(room, value.abs())
        else:
            amount = torch.minimum(self._level(room, value.abs()) * self.gain, room)
        return way.mul_(amount).view(len(points), *points[0].shape)

    def _level(self, room: Tensor, need: Tensor) -> Tensor:
        """Return the t (P, B, 1) with sum_i weight_i min(t gain_i, room_i) = need.

        The sum is concave and piecewise linear in t, so Newton's method from zero rises to the
        root and stands on it once no further pixel meets its bound. A very large t if there is no
        root.
        """
        t, tolerance = torch.zeros_like(need), 16 * torch.finfo(need.dtype).eps
        host = need.device.type == "cpu"
        free = torch.empty_like(room)
        for _ in range(_ROUNDS if host else _BLIND):
            reach = t * self.gain
            torch.lt(reach, room, out=free)
            left = need - torch.minimum(reach, room, out=reach).mul_(self.weight).sum(-1, True)
            rise = free.mul_(self.rate).sum(-1, keepdim=True)
            step = (left / rise.clamp_min(1e-30)).masked_fill_(rise <= 0, _FAR)
            step.masked_fill_((left <= 0) | (t >= _FAR), 0)
            t = (t + step).clamp_max(_FAR)
            if host and not bool((step > tolerance * t).any()):
                break
        return t

    def _steepest_first(self, room: Tensor, need: Tensor) -> Tensor:
        """Return amounts in [0, room] with sum weight * amount = need, largest weights first."""
        order, steep = self.order.expand(room.shape), self.steep
        wide = room.gather(-1, order)
        gained = steep * wide
        before = gained.cumsum(-1) - gained
        amount = torch.minimum(((need - before) / steep.clamp_min(1e-30)).clamp_min(0), wide)
        return torch.zeros_like(room).scatter_(-1, order, amount * (steep > 0))
