"""What an explainer is: images and classes in, raw signed maps out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diascope.models.frozen import FrozenModel
from diascope.models.modes import exactly
from diascope.registry import Registry

explainers = Registry("explainer", "diascope.explain")

Rectification = Literal["absolute", "positive"]
Need = Literal["any", "convolution", "soft attention"]


@runtime_checkable
class Explainer(Protocol):
    """A frozen dataclass called as (model, x, target) -> attribution.

    x: images (B, C, H, W) in [0, 1]; target: the explained class of each image, (B,) int64, or
    one int for all; of a multi-label head the column, of a single logit 0 or 1. The attribution is
    raw and signed, (B, C or 1, H, W), of x's device and kind of number. `rectification` says how
    it is made non-negative before it is rendered or measured.

    A member that explains only some models says so by a class variable `needs`: "convolution", a
    convolution whose map is explained; "soft attention", a model built with it. Without, "any".
    A member whose map can be summed up against the score has `due` and `total` (`Complete`).
    A member that costs another number of passes than one forward and one backward has
    `passes(side)` (`passes_of`).
    """

    rectification: Rectification

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the attribution."""
        ...


@runtime_checkable
class Complete(Protocol):
    """An explainer whose parts sum to a known value: the completeness axiom.

    Both methods take what the explainer takes; called with generators in the same state and the
    same ids they speak of the same random draws. `sums_itself`, a class variable, is true where the
    attribution's own values are the parts. See `diascope.explain.completeness`.
    """

    def total(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of all parts of the decomposition, (B,), in the explainer's precision."""
        ...

    def due(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return what they must sum to, (B,), by forwards of the model itself in float32."""
        ...


def need_of(explainer: object) -> Need:
    """Return what kind of model the explainer, or its class, needs."""
    return getattr(explainer, "needs", "any")


def passes_of(explainer: object, side: int) -> float:
    """Return how many forward passes an image of `side` x `side` costs, a backward counting two."""
    told: Callable[[int], float] | None = getattr(explainer, "passes", None)
    return 3.0 if told is None else float(told(side))


def seeds(generator: torch.Generator | None) -> Callable[[], torch.Generator]:
    """Draw a seed, and return a function that makes generators of it, each in the same state."""
    device = generator.device if generator is not None else "cpu"
    seed = int(torch.randint(2**62, (1,), generator=generator, device=device).item())
    return lambda: torch.Generator().manual_seed(seed)


def as_targets(target: Tensor | int, x: Tensor) -> Tensor:
    """Return the target classes as an int64 tensor (B,)."""
    if isinstance(target, int):
        return torch.full((len(x),), target, device=x.device)
    targets = torch.as_tensor(target, device=x.device).long()
    return targets.expand(len(x)) if targets.ndim == 0 else targets


def checked_targets(net: FrozenModel, x: Tensor, target: Tensor | int) -> Tensor:
    """Return the target classes (B,) int64 of images x (B, C, H, W), if they are such.

    Raises ValueError for images that are not float (B, C, H, W), for targets of another shape,
    and for classes that the model does not have: 0 to K - 1 are there, with a single logit 0 and
    1. It looks at the device once a call, and only if the targets are a tensor there.
    """
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"images must be float (B, C, H, W), not {x.dtype} {tuple(x.shape)}")
    kind = torch.long if isinstance(target, int) else torch.as_tensor(target).dtype
    if kind.is_floating_point or kind.is_complex:
        raise ValueError(f"targets must be classes, integers, not {kind}")
    targets = as_targets(target, x)
    if targets.shape != (len(x),):
        raise ValueError(
            f"targets of shape {tuple(targets.shape)} for {len(x)} images: (B,) classes are "
            "needed, or one for all"
        )
    if not len(x):
        return targets
    low, high = _range(target)
    count = net.outputs
    if not 0 <= low <= high < max(count, 2) or not count:
        with torch.no_grad(), exactly(net) as inner:  # another head since it was looked at, or new
            count = int(inner(x[:1]).shape[-1])
    if not 0 <= low <= high < max(count, 2):
        which = f"{low}" if low == high else f"from {low} to {high}"
        raise ValueError(
            f"targets {which}: this model of {count} output{'s' if count > 1 else ''} has the "
            f"classes 0 to {max(count, 2) - 1}"
        )
    return targets


def _range(target: Tensor | int) -> tuple[int, int]:
    if isinstance(target, int):
        return target, target
    low, high = torch.stack(torch.aminmax(torch.as_tensor(target))).tolist()
    return int(low), int(high)
