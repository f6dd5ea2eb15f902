"""The threat model: a norm, an epsilon and the pixel bounds. Nothing else clamps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diascope.randomness import Noise

Norm = Literal["linf", "l2"]


@dataclass(frozen=True)
class Threat:
    """Perturbations of norm at most `eps` that keep the pixels within `bounds`.

    `norm` is "linf" or "l2"; `eps`, in pixel units ([0, 1] images), is a number or a tensor (B,)
    with one epsilon an image.
    """

    norm: Norm
    eps: float | Tensor
    bounds: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if self.norm not in ("linf", "l2"):
            raise ValueError(f"norm='{self.norm}': one of linf, l2")
        if isinstance(self.eps, Tensor):
            if bool((self.eps < 0).any()) or not bool(self.eps.isfinite().all()):
                raise ValueError("every eps must be finite and at least 0")
        elif not (self.eps >= 0 and math.isfinite(self.eps)):
            raise ValueError(f"eps={self.eps}: must be finite and at least 0")

    def project(self, x_adv: Tensor, x: Tensor) -> Tensor:
        """Return the point of the ball around `x` within the bounds that `x_adv` is sent to.

        Both are (B, C, H, W). L-inf: the nearest point. L2: scaled back to the sphere, then
        clipped to the bounds, which never leaves the ball since `x` is within them.
        """
        delta = x_adv - x
        if self.norm == "linf":
            eps = self._eps(x)
            delta = torch.minimum(torch.maximum(delta, -eps), eps)
        else:
            length = _l2(delta)
            delta = delta * (self._eps(x) / length.clamp_min(1e-30)).clamp_max(1.0)
        return (x + delta).clamp(*self.bounds)

    def random_start(self, x: Tensor, noise: Noise, stream: int = 0) -> Tensor:
        """Return a point drawn uniformly from the ball around each image, clipped to the bounds.

        L-inf: uniform in the cube (Madry et al. 2018). L2: a Gaussian direction with radius
        eps * u^(1/d), u uniform.
        """
        shape, eps = x.shape[1:], self._eps(x)
        if self.norm == "linf":
            delta = (noise.uniform(shape, stream).to(x.dtype) * 2 - 1) * eps
        else:
            direction = noise.normal(shape, stream).to(x.dtype)
            u = noise.uniform((1, 1, 1), stream + 500_009).to(x.dtype)
            radius = eps * u ** (1.0 / math.prod(shape))
            delta = direction * (radius / _l2(direction))
        return self.project(x + delta, x)

    def steepest(self, gradient: Tensor) -> Tensor:
        """Return the direction of unit norm along which a linear loss rises fastest.

        L-inf: the sign. L2: the gradient over its length; a zero gradient stays zero.
        """
        if self.norm == "linf":
            return gradient.sign()
        return gradient / _l2(gradient).clamp_min(1e-30)

    def size(self, delta: Tensor) -> Tensor:
        """Return the norm of each perturbation, (B, C, H, W) -> (B,)."""
        if self.norm == "linf":
            return delta.abs().flatten(1).amax(1)
        return _l2(delta).flatten()

    def _eps(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.eps, dtype=x.dtype, device=x.device).reshape(-1, 1, 1, 1)


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
