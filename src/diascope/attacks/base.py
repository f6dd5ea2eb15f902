"""What an attack is: images and labels in, images of the same ball out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from diascope.attacks.threat import Norm, Threat
from diascope.models.heads import cross_entropy
from diascope.models.modes import evaluating
from diascope.randomness import Noise
from diascope.registry import Registry

attacks = Registry("attack", "diascope.attacks")


@runtime_checkable
class Attack(Protocol):
    """A frozen dataclass called as (model, x, y) -> x_adv.

    x: images (B, C, H, W) in [0, 1]; y: labels (B,), or (B, K) for multi-label heads. The result
    has the shape of x and lies within `eps` of it in `norm`, and within [0, 1]. Randomness comes
    from `generator` (torch's own if None) and, with `ids` (B,) int64, belongs to the image.
    """

    norm: Norm
    eps: float | Tensor

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the adversarial images."""
        ...


A = TypeVar("A", bound=Attack)


def at_eps(attack: A, eps: float | Tensor) -> A:
    """Return the same attack with another epsilon."""
    return replace(attack, eps=eps)  # type: ignore[type-var]


@dataclass(frozen=True, kw_only=True)
class GradientAttack:
    """The template of the gradient attacks: start, then steps along the steepest direction.

    Members say how many steps, how long, and where they start. The model is attacked in eval
    mode with its flags given back; only the gradient to the input is computed; the loss is the
    sum over the images, so that no image's result depends on its batch. A gradient that is not
    finite moves nothing.

    norm: "linf" or "l2". eps: in pixel units, a number or (B,). targeted: y holds the class
    wanted instead of the true one.
    """

    norm: Norm = "linf"
    eps: float | Tensor = 8 / 255
    targeted: bool = False

    def __post_init__(self) -> None:
        Threat(self.norm, self.eps)

    @property
    def threat(self) -> Threat:
        """The ball in which the attack stays."""
        return Threat(self.norm, self.eps)

    def _steps(self) -> int:
        raise NotImplementedError

    def _step_size(self) -> float | Tensor:
        raise NotImplementedError

    def _start(self, threat: Threat, x: Tensor, noise: Noise) -> Tensor:
        return x

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return adversarial images for x (B, C, H, W) in [0, 1] and labels y; see `Attack`."""
        check_images(x)
        x = x.detach()
        threat = self.threat
        size = torch.as_tensor(self._step_size(), dtype=x.dtype, device=x.device)
        size = size.reshape(-1, 1, 1, 1) * (-1.0 if self.targeted else 1.0)
        x_adv = self._start(threat, x, Noise.of(x, generator, ids))
        with evaluating(model) as inner:
            for _ in range(self._steps()):
                gradient = input_gradient(inner, x_adv, y)
                x_adv = threat.project(x_adv + size * threat.steepest(gradient), x)
        return x_adv


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Return the gradient of the summed cross-entropy to the input, zero where not finite."""
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        loss = cross_entropy(model(x), y).sum()
        (gradient,) = torch.autograd.grad(loss, x)
    return gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)


def check_images(x: Tensor) -> None:
    """Raise ValueError unless x is (B, C, H, W), floating point, within [0, 1]."""
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"images must be float (B, C, H, W), not {x.dtype} {tuple(x.shape)}")
    if x.numel():
        low, high = torch.aminmax(x)
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"images must lie in [0, 1]; these run from {low:.3g} to {high:.3g}. "
                "Put the normalisation into the model and divide 8-bit pixels by 255"
            )
