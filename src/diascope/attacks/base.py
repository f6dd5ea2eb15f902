"""What an attack is: images and labels in, images of the same ball out."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor, nn

from diascope.attacks.threat import Norm
from diascope.errors import Doubt
from diascope.models.frozen import FrozenModel
from diascope.models.heads import is_multilabel, predictions
from diascope.models.modes import exactly
from diascope.registry import Registry

attacks = Registry("attack", "diascope.attacks")

LossFunction = Callable[[Tensor, Tensor], Tensor]
Judge = Callable[[Tensor, Tensor, Tensor], Tensor]  # x_adv, x (n, C, H, W), labels -> broken (n,)


@runtime_checkable
class Attack(Protocol):
    """A frozen dataclass called as (model, x, y) -> x_adv.

    x: images (B, C, H, W) in [0, 1]; y: labels (B,), or (B, K) for multi-label heads. The result
    has the shape of x and lies within `eps` of it in `norm`, and within [0, 1]. Randomness comes
    from `generator` (torch's own if None) and, with `ids` (B,) int64, belongs to the image.
    """

    @property
    def norm(self) -> Norm:
        """The norm of the ball."""
        ...

    @property
    def eps(self) -> float | Tensor | None:
        """The radius of the ball in pixel units, a number or (B,); None: minimum-norm."""
        ...

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


def logits_and_gradient(
    net: nn.Module, x: Tensor, y: Tensor, loss: LossFunction
) -> tuple[Tensor, Tensor]:
    """Return the logits (B, K) and the gradient of the summed `loss` to the images (B, C, H, W).

    One forward and one backward pass, to the input alone. The gradient is zero where it is not
    finite, and where the model has none.
    """
    logits, _, gradient = value_and_gradient(net, x, y, loss)
    return logits, gradient


def value_and_gradient(
    net: nn.Module, x: Tensor, y: Tensor, loss: LossFunction
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `logits_and_gradient` does, and between them the loss of each image (B,)."""
    if torch.is_inference_mode_enabled():
        raise RuntimeError("attacks need gradients: call them outside torch.inference_mode()")
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = net(x)
        value = loss(logits, y)
        if not value.requires_grad:
            return logits, value, torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    gradient = gradient.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    return logits.detach(), value.detach(), gradient


def is_broken(logits: Tensor, y: Tensor, *, targeted: bool = False) -> Tensor:
    """Return whether the attack has what it wants, (B,) bool.

    Untargeted: the image is misclassified (logits that are not finite count as such). Targeted:
    it is classified as `y`.
    """
    return broken_and_finite(logits, y, targeted=targeted)[0]


def broken_and_finite(
    logits: Tensor, y: Tensor, *, targeted: bool = False
) -> tuple[Tensor, Tensor]:
    """Return `is_broken`, and whether every logit of the image is finite, (B,) bool each."""
    finite = (logits - logits == 0).all(1)
    same = predictions(logits, multilabel=is_multilabel(logits, y)) == y.long()
    hit = (same if same.ndim == 1 else same.all(1)) & finite
    return hit if targeted else ~hit, finite


@torch.no_grad()
def verdict(
    model: nn.Module, x: Tensor, y: Tensor, *, targeted: bool = False, batch_size: int = 64
) -> Tensor:
    """Return whether each image is broken, asked of the original model in float32, (B,) bool.

    A frozen model's original is asked; float64 images are asked in float64. A point that is not
    finite breaks nothing.
    """
    parts = []
    with exactly(model) as inner:
        for xs, ys in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
            if xs.ndim == 4:
                xs = xs.contiguous(memory_format=torch.channels_last)
            logits = inner(xs if xs.dtype == torch.float64 else xs.float())
            real = xs.flatten(1).isfinite().all(1)
            parts.append(is_broken(logits, ys, targeted=targeted) & real)
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.bool, device=x.device)


def judge_or_model(judge: Judge | None, model: nn.Module, *, targeted: bool) -> Judge:
    """Return the judge, or without one the verdict of the model itself."""
    if judge is not None:
        return judge

    def own(x_adv: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return verdict(model, x_adv, y, targeted=targeted, batch_size=max(1, len(x_adv)))

    return own


class NotFiniteWarning(Doubt):
    """The model returned logits that are not finite."""


class NoGradientWarning(Doubt):
    """The loss has no gradient to the image, so that a gradient attack tries nothing."""


def warn_if_no_gradient(moved: Tensor) -> None:
    """Warn once a call of images (B,) whose first gradient was zero everywhere."""
    count = int((~moved).sum())
    if count:
        warnings.warn(
            f"the gradient is zero for {count} of {len(moved)} images, where nothing was tried: "
            "their robustness is not shown; try loss='margin', or Square, which needs no gradient",
            NoGradientWarning,
            stacklevel=3,
        )


def warn_if_not_finite(net: FrozenModel | nn.Module, finite: Tensor) -> None:
    """Warn once a call of images (B,) whose logits were not finite on the way."""
    count = int((~finite).sum())
    if count:
        warnings.warn(
            f"the model returned logits that are not finite for {count} of {len(finite)} images; "
            "their gradients moved nothing, and they count as misclassified",
            NotFiniteWarning,
            stacklevel=3,
        )


def check_images(x: Tensor, model: nn.Module | None = None) -> None:
    """Raise ValueError unless x is (B, C, H, W), floating point, within [0, 1].

    And of the kind of number that `model`, if given, takes: asked of it where its weights differ.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"images must be float (B, C, H, W), not {x.dtype} {tuple(x.shape)}")
    if x.numel():
        low, high = torch.aminmax(x)
        if not (low >= 0 and high <= 1):
            raise ValueError(
                f"images must lie in [0, 1]; these run from {low:.3g} to {high:.3g}. "
                "Put the normalisation into the model and divide 8-bit pixels by 255"
            )
    weight = next((p for p in model.parameters() if p.is_floating_point()), x) if model else x
    if model is not None and x.dtype != weight.dtype and len(x):
        try:
            with torch.no_grad(), exactly(model) as inner:
                inner(x[:1])
        except RuntimeError as error:
            raise ValueError(
                f"the images are {x.dtype} and the model's weights {weight.dtype}: "
                "convert one to the kind of the other"
            ) from error


def check_labels(net: FrozenModel, x: Tensor, y: Tensor) -> None:
    """Raise ValueError unless y are labels of the images x (B, C, H, W) that `net` can tell apart.

    (B,) from 0 to K - 1 (to 1 with a single logit), or for several labels (B, K) from 0 to 1.
    """
    if y.ndim not in (1, 2) or len(y) != len(x):
        raise ValueError(
            f"labels of shape {tuple(y.shape)} for {len(x)} images: (B,) classes are needed, "
            "or (B, K) for several labels"
        )
    if not len(x):
        return
    low, high = torch.stack(torch.aminmax(y.double())).tolist()
    count = net.outputs
    if _fits(y, low, high, count):
        return
    with torch.no_grad(), exactly(net) as inner:  # the head may be another since it was looked at
        device = next((p.device for p in inner.parameters()), x.device)
        count = int(inner(x[:1].to(device)).shape[-1])
    if not _fits(y, low, high, count):
        wanted = f"(B, {count}) from 0 to 1" if y.ndim == 2 else f"from 0 to {max(count, 2) - 1}"
        raise ValueError(
            f"labels of shape {tuple(y.shape)} run from {low:g} to {high:g}; for this model of "
            f"{count} output{'s' if count > 1 else ''} they must be {wanted}"
        )


def _fits(y: Tensor, low: float, high: float, outputs: int) -> bool:
    """Tell whether labels fit a head of so many outputs; with 0 the number is not known."""
    if not low >= 0:
        return False
    if y.ndim == 2:
        return high <= 1 and outputs in (0, y.shape[1])
    return not outputs or high < max(outputs, 2)
