"""A model that draws random numbers, averaged over its draws."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Averaged(nn.Module):
    """The mean logits (B, K) of several draws: the expectation over the model's randomness.

    Each draw is a forward pass of its own, so that what is drawn once a batch is averaged too.
    Its gradient is that of the expectation (EOT, Athalye et al. 2018, section 4.2).
    """

    def __init__(self, inner: nn.Module, draws: int) -> None:
        super().__init__()
        self.inner, self.draws = inner, draws

    def forward(self, x: Tensor) -> Tensor:
        """Return the mean logits."""
        return torch.stack([self.inner(x) for _ in range(self.draws)]).mean(0)
