"""A model that counts what is asked of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


class Meter:
    """Forward passes of one image, a backward pass counting two; `tell` hears of each."""

    def __init__(self, tell: Callable[[float], None] = lambda passes: None) -> None:
        self.passes, self.tell = 0.0, tell

    def add(self, passes: float) -> None:
        """Count so many passes."""
        self.passes += passes
        self.tell(passes)

    def __deepcopy__(self, memo: dict[int, Any]) -> Meter:
        return self  # copies of a model count together


class Metered(nn.Module):
    """The same model, each of whose passes is counted by `meter`, copies of it included."""

    def __init__(self, inner: nn.Module, meter: Meter) -> None:
        super().__init__()
        self.inner, self.meter = inner, meter
        self.training = inner.training

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        logits: Tensor = self.inner(x)
        self.count_passes(len(x))
        if isinstance(logits, Tensor) and logits.requires_grad and torch.is_grad_enabled():
            logits.register_hook(  # type: ignore[no-untyped-call]
                lambda gradient: self.meter.add(2 * len(gradient))
            )
        return logits

    def count_passes(self, count: int) -> None:
        """Count passes of so many images; some go past this code (`diascope.models.changes`)."""
        self.meter.add(count)
