"""A model that remembers which of the points it was asked about broke their image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diascope.attacks.base import is_broken
from diascope.attacks.threat import Threat


class Notes:
    """Of each image (n, C, H, W) the first points of its ball that broke it, `KEPT` at most.

    A point belongs to the nearest image, if it lies in that image's ball.
    """

    KEPT = 3

    def __init__(self, x: Tensor, y: Tensor, threat: Threat, slack: float) -> None:
        self.x, self.y, self.threat, self.slack = x, y, threat, slack
        self.points: list[list[Tensor]] = [[] for _ in range(len(x))]

    def learn(self, points: Tensor, logits: Tensor) -> None:
        """Look at points (B, C, H, W) and the logits that the model gave for them."""
        away = torch.cdist(points.flatten(1).float(), self.x.flatten(1))  # (B, n)
        nearest = away.argmin(1)
        within = self.threat.size(points.float() - self.x[nearest]) <= self.slack
        hits = (is_broken(logits, self.y[nearest]) & within).nonzero()[:, 0]
        for place in hits.tolist():
            kept = self.points[int(nearest[place])]
            if len(kept) < self.KEPT:
                kept.append(points[place].detach().float().clone())

    def __deepcopy__(self, memo: dict[int, Any]) -> Notes:
        return self  # copies of a model write into one book


class Watched(nn.Module):
    """The same model, whose every answer is noted."""

    def __init__(self, inner: nn.Module, notes: Notes) -> None:
        super().__init__()
        self.inner, self.notes = inner, notes

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        logits: Tensor = self.inner(x)
        if x.shape[1:] == self.notes.x.shape[1:]:
            self.notes.learn(x.detach(), logits.detach())
        return logits
