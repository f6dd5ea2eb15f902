"""A decision at a threshold as a model of its own, so that attacks break that and nothing else.

A clinic seldom takes the most probable class: it calls an image positive from a threshold on. An
attack on the most probable class works at another boundary, and stops where the decision stands.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
import torch
from torch import Tensor, nn


class AtThreshold(nn.Module):
    """One logit of "the threshold is reached": log P / (1 - P) - log t / (1 - t), (B, 1).

    P is the sum of the probabilities of the `positive` classes of `model`, a softmax over
    `classes` or a single sigmoid for two; t the `threshold`, above 0 and below 1, or given by its
    `log_odds` where it lies nearer to 0 or 1 than a float can say. Above zero, which is where
    P >= t, the decision is class 1. All is computed of the logits by log-sum-exp, so that a
    saturated head keeps its gradient. Raises ValueError for classes that the model cannot have,
    for none or all of them, and for a threshold of 0 or 1.
    """

    inside: Tensor
    outside: Tensor
    cut: Tensor

    def __init__(
        self,
        model: nn.Module,
        positive: Collection[int],
        classes: int,
        *,
        threshold: float = 0.5,
        log_odds: float | None = None,
    ) -> None:
        super().__init__()
        inside, outside = _sides(positive, classes)
        if log_odds is None:
            if not 0 < threshold < 1:
                raise ValueError(f"threshold={threshold}: above 0 and below 1")
            log_odds = math.log(threshold) - math.log1p(-threshold)
        if not math.isfinite(log_odds):
            raise ValueError(f"log_odds={log_odds}: a finite number")
        self.model = model
        self.register_buffer("inside", inside)
        self.register_buffer("outside", outside)
        self.register_buffer("cut", torch.tensor(_just_below(log_odds)))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logit of images (B, C, H, W), (B, 1), at least in float32."""
        return (_odds(self.model(x), self.inside, self.outside) - self.cut)[:, None]


def positive_log_odds(logits: Tensor, positive: Collection[int], classes: int) -> Tensor:
    """Return log P / (1 - P) of logits (B, K), (B,): P the probability of the positive classes."""
    return _odds(logits, *(side.to(logits.device) for side in _sides(positive, classes)))


def _sides(positive: Collection[int], classes: int) -> tuple[Tensor, Tensor]:
    """Return the positive classes and the others; ValueError where one of them is empty."""
    inside, every = sorted(set(positive)), set(range(classes))
    if not inside or not set(inside) < every:
        raise ValueError(f"positive={inside}: some, not all, of the classes 0 to {classes - 1}")
    return torch.tensor(inside), torch.tensor(sorted(every - set(inside)))


def _odds(logits: Tensor, inside: Tensor, outside: Tensor) -> Tensor:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if logits.shape[1] == 1:
        return (logits * (2 * inside - 1))[:, 0]
    parts = [logits.index_select(1, side) for side in (inside, outside)]
    return parts[0].logsumexp(1) - parts[1].logsumexp(1)


def _just_below(value: float) -> float:
    """Return the float32 before `value`: what equals the threshold then lies above zero."""
    return float(np.nextafter(np.float32(value), np.float32(-np.inf)))
