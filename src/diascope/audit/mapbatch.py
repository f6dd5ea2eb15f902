"""Some images of an audit, and an explainer that does not explain them twice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diascope.audit.bench import Bench, Rows
from diascope.explain import Explainer
from diascope.explain.base import Rectification, seeds
from diascope.models.modes import unwrapped


@dataclass(frozen=True)
class Batch:
    """Some images of the bench: x (B, C, H, W), y (B,), ids (B,), masks (B, H, W) or None."""

    rows: Rows
    x: Tensor
    y: Tensor
    ids: Tensor
    inside: Tensor | None

    @classmethod
    def of(cls, bench: Bench, rows: Rows) -> Batch:
        """Return some rows of the bench."""
        pixels, device = bench.pixels, bench.device
        inside = None if pixels.masks is None else pixels.m(rows, device)
        x, y = pixels.x(rows, device), pixels.y(rows, device)
        return cls(rows, x, y, pixels.ids(rows).to(device), inside)

    def take(self, place: Rows) -> Batch:
        """Return some of the images."""
        at = torch.from_numpy(place).to(self.x.device)
        inside = None if self.inside is None else self.inside[at]
        return Batch(self.rows[place], self.x[at], self.y[at], self.ids[at], inside)


class Kept:
    """An explainer that has explained some images already, and gives those maps out again.

    Whoever calls it, its random draws are those of the bench.
    """

    def __init__(
        self, bench: Bench, method: Explainer, x: Tensor | None = None, raw: Tensor | None = None
    ) -> None:
        self.bench, self.method, self.x, self.raw = bench, method, x, raw
        self.rectification: Rectification = method.rectification
        self.precision = getattr(method, "precision", "auto")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the attribution (B, C or 1, H, W)."""
        if self.raw is not None and x is self.x and unwrapped(model) is unwrapped(self.bench.model):
            return self.raw
        drawn = seeds(self.bench.seeded("explain"))()
        return self.method(model, x, target, generator=drawn, ids=ids)
