"""What an explainer is: images and classes in, raw signed maps out."""

from __future__ import annotations

from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diascope.registry import Registry

explainers = Registry("explainer", "diascope.explain")

Rectification = Literal["absolute", "positive"]


@runtime_checkable
class Explainer(Protocol):
    """A frozen dataclass called as (model, x, target) -> attribution.

    x: images (B, C, H, W) in [0, 1]; target: the explained class of each image, (B,) int64, or
    one int for all. The attribution is raw and signed, (B, C or 1, H, W), of x's device.
    `rectification` says how it is made non-negative before it is rendered or measured.
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


def as_targets(target: Tensor | int, x: Tensor) -> Tensor:
    """Return the target classes as an int64 tensor (B,)."""
    targets = torch.as_tensor(target, device=x.device).long()
    return targets.expand(len(x)) if targets.ndim == 0 else targets
