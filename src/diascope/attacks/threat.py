"""The threat model: a norm, an epsilon and the pixel bounds. Nothing else clamps."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from diascope.randomness import Noise

Norm = Literal["linf", "l2", "l1"]
NORMS: tuple[Norm, ...] = ("linf", "l2", "l1")
SPARSITY = 0.01  # the share of coordinates that a step in L1 moves (Tramer and Boneh 2019: 1%)


@dataclass(frozen=True)
class Threat:
    """Perturbations of norm at most `eps` that keep the pixels within `bounds`.

    `norm` is "linf", "l2" or "l1"; `eps`, in pixel units ([0, 1] images), is a number or a
    tensor (B,) with one epsilon an image.
    """

    norm: Norm
    eps: float | Tensor
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm='{self.norm}': one of {', '.join(NORMS)}")
        if isinstance(self.eps, Tensor):
            if bool((self.eps < 0).any()) or not bool(self.eps.isfinite().all()):
                raise ValueError("every eps must be finite and at least 0")
        elif not (self.eps >= 0 and math.isfinite(self.eps)):
            raise ValueError(f"eps={self.eps}: must be finite and at least 0")

    def on(self, x: Tensor) -> Threat:
        """Return the threat with its eps, if a tensor, on the device and in the dtype of `x`."""
        return self._with(self.eps.to(x)) if isinstance(self.eps, Tensor) else self

    def take(self, rows: Tensor) -> Threat:
        """Return the threat of some of the images: where eps is one an image, theirs."""
        if isinstance(self.eps, Tensor) and self.eps.numel() > 1:
            return self._with(self.eps.to(rows.device)[rows])
        return self

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the point of the ball around `x` within the bounds that `x_adv` is sent to.

        Both are (B, C, H, W). L-inf: the nearest point. L2: scaled back to the sphere, then
        clipped to the bounds, which never leaves the ball since `x` is within them. L1: the
        nearest point of ball and bounds together (Croce and Hein 2021, proposition 2.3).
        """
        delta = x_adv - x
        eps: Any = self._eps(x)  # clamp takes either, but its types do not say so
        if self.norm == "linf":
            delta = delta.clamp_(-eps, eps)
        elif self.norm == "l2":
            delta = delta.mul_((eps / _l2(delta).clamp_min(1e-30)).clamp_max(1.0))
        else:
            room = torch.where(delta > 0, self.bounds[1] - x, x - self.bounds[0])
            delta = delta.sign() * _onto_l1(delta.abs(), room.clamp_min(0), eps)
        return delta.add_(x).clamp_(*self.bounds)

    def random_start(
        self, x: Tensor, noise: Noise, stream: int = 0, *, on_sphere: bool = False
    ) -> Tensor:
        """Return a random point of the ball around each image, clipped to the bounds.

        L-inf: uniform in the cube (Madry et al. 2018). L2 and L1: a Gaussian or Laplacian
        direction, at a radius uniform in [0, eps]. (Points uniform in the ball would lie on its
        sphere, as nearly all of its volume does in thousands of dimensions; a few steps from
        there break fewer images than from within: docs/results/attacks.md.) `on_sphere`: at
        radius eps itself, from where a long climb that begins with large steps breaks more.
        """
        shape, eps = x.shape[1:], self._eps(x)
        if self.norm == "linf":
            delta = (noise.uniform(shape, stream).to(x.dtype) * 2 - 1) * eps
        else:
            share = noise.uniform((1, 1, 1), stream + 500_009).to(x.dtype)
            radius = torch.ones_like(share) * eps if on_sphere else eps * share
            if self.norm == "l2":
                direction = noise.normal(shape, stream).to(x.dtype)
            else:
                side = noise.uniform(shape, stream).to(x.dtype) * 2 - 1
                side = side.clamp(-1 + 2**-23, 1 - 2**-23)  # at 1 the logarithm has no end
                direction = side.sign() * torch.log1p(-side.abs())
            delta = direction * (radius / self._length(direction))
        return self.project(x + delta, x)

    def steepest(self, gradient: Tensor, x_adv: Tensor | None = None) -> Tensor:
        """Return the direction of unit norm along which a linear loss rises fastest.

        L-inf: the sign. L2: the gradient over its length; a zero gradient stays zero. L1: the
        signs of the steepest hundredth of the coordinates (one alone, the steepest, would need
        thousands of steps), of those that are not at a bound already, if `x_adv` is given.
        """
        if self.norm == "linf":
            return gradient.sign()
        if self.norm == "l2":
            return gradient / _l2(gradient).clamp_min(1e-30)
        if x_adv is not None:
            stuck = (x_adv <= self.bounds[0]) & (gradient < 0)
            stuck |= (x_adv >= self.bounds[1]) & (gradient > 0)
            gradient = gradient.masked_fill(stuck, 0)
        size = gradient.abs().flatten(1)
        least = size.topk(max(1, round(SPARSITY * size.shape[1])), dim=1).values[:, -1]
        chosen = (gradient.abs() >= least.view(-1, 1, 1, 1)) * gradient.sign()
        return chosen / self._length(chosen).clamp_min(1)

    def size(self, delta: Tensor) -> Tensor:
        """Return the norm of each perturbation, (B, C, H, W) -> (B,)."""
        return self._length(delta).flatten()

    def round(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return `x_adv` at 8 bits a channel, rounded towards `x`, which must be so already.

        Rounding towards the original never leaves the ball. A change below one grey level (1/255)
        vanishes: no eps under it exists in 8 bits for L-inf.
        """
        grey = x * 255
        if bool(((grey - grey.round()).abs() > 1e-2).any()):
            raise ValueError("the original images are not at 8 bits; round them before the attack")
        change = ((x_adv - x) * 255).double()
        whole = torch.where((change - change.round()).abs() < 1e-4, change.round(), change.trunc())
        return ((grey.round() + whole.to(x.dtype)) / 255).clamp(*self.bounds)

    def _length(self, delta: Tensor) -> Tensor:
        """Return the norm of each perturbation, (B, 1, 1, 1)."""
        if self.norm == "l2":
            return _l2(delta)
        flat = delta.abs().flatten(1)
        return (flat.amax(1) if self.norm == "linf" else flat.sum(1)).view(-1, 1, 1, 1)

    def _eps(self, x: Tensor) -> float | Tensor:
        """Return eps as operations take it: a number stays on the host, no tensor is made of it."""
        return self.eps.to(x).reshape(-1, 1, 1, 1) if isinstance(self.eps, Tensor) else self.eps

    def _with(self, eps: float | Tensor) -> Threat:
        """Return the threat with another epsilon, which is not looked at: each look waits."""
        new = copy.copy(self)
        object.__setattr__(new, "eps", eps)
        return new


def scale_eps(eps: float, side: int, reference: int = 224, rule: str = "pixels") -> float:
    """Return an L2 epsilon given at `reference` x `reference` pixels for `side` x `side`.

    rule "pixels": in proportion to the number of pixels (P1, section 4: its words); "root": to
    its square root, which keeps the change per pixel; "none": unchanged.
    """
    ratio = (side / reference) ** 2
    factors = {"pixels": ratio, "root": math.sqrt(ratio), "none": 1.0}
    if rule not in factors:
        raise ValueError(f"rule='{rule}': one of pixels, root, none")
    return eps * factors[rule]


def _l2(delta: Tensor) -> Tensor:
    """Return the Euclidean length of each image's perturbation, shape (B, 1, 1, 1)."""
    length: Tensor = torch.linalg.vector_norm(delta.flatten(1), dim=1)
    return length.view(-1, 1, 1, 1)


def _onto_l1(size: Tensor, room: Tensor, eps: float | Tensor) -> Tensor:
    """Return sizes in [0, room] nearest to `size` whose sum is at most `eps`, all (B, C, H, W).

    They are min(max(size - cut, 0), room) for the least cut >= 0 that fits: bisection brackets it,
    and the piece of the sum, linear in the cut, on which it lies gives it exactly.
    """
    high = size.flatten(1).amax(1).view(-1, 1, 1, 1)
    low = torch.zeros_like(high)
    for _ in range(30):
        cut = (low + high) / 2
        over = _cut(size, room, cut).flatten(1).sum(1).view(-1, 1, 1, 1) > eps
        low, high = torch.where(over, cut, low), torch.where(over, high, cut)
    full = size - high >= room
    partly = (size > high) & ~full
    count = partly.flatten(1).sum(1).view(-1, 1, 1, 1)
    total = (size * partly + room * full).flatten(1).sum(1).view(-1, 1, 1, 1)
    exact = ((total - eps) / count.clamp_min(1)).clamp(low, high)
    cut = torch.where(count > 0, exact, high)
    fits = torch.minimum(size, room).flatten(1).sum(1).view(-1, 1, 1, 1) <= eps
    found = _cut(size, room, torch.where(fits, 0, cut))
    length = found.flatten(1).sum(1).view(-1, 1, 1, 1)
    return found * (eps / length.clamp_min(1e-30)).clamp_max(1.0)  # what rounding left over


def _cut(size: Tensor, room: Tensor, cut: Tensor) -> Tensor:
    return torch.minimum((size - cut).clamp_min(0), room)
