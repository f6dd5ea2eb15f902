"""What an objective is: a model, images and labels in, a loss to descend out."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack
from diascope.registry import Registry

objectives = Registry("objective", "diascope.objectives")


@runtime_checkable
class Objective(Protocol):
    """A frozen dataclass called as (model, x, y) -> loss, a scalar tensor: the batch's mean.

    `attack` is the attack the objective trains against, or None. `class_weight` (K,) multiplies
    the cross-entropy of each class. The model is attacked in eval mode under the ambient
    autocast, and the loss goes through `model` itself, wrapper and all.
    """

    attack: Attack | None

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
        class_weight: Tensor | None = None,
    ) -> Tensor:
        """Return the loss."""
        ...
