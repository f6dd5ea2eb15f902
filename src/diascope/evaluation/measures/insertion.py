"""Insertion and deletion: how the target's probability moves as the hottest pixels come or go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from diascope.evaluation.measures import MEASURES
from diascope.evaluation.measures.faithfulness import Faithfulness
from diascope.explain.baselines import blurred
from diascope.explain.chunks import chunks, rows_within
from diascope.models.frozen import FrozenModel
from diascope.models.heads import target_score
from diascope.randomness import Noise

Fill = Literal["mean", "black", "blurred"]


@dataclass(frozen=True, kw_only=True)
class _PixelCurve(Faithfulness):
    """What insertion and deletion share."""

    limits: ClassVar[tuple[float, float]] = (0.0, 1.0)
    comes: ClassVar[bool]

    steps: int = 32
    fill: Fill = "mean"
    blur: float = 10.0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}, and must be at least 1")
        if self.fill not in ("mean", "black", "blurred"):
            raise ValueError(f"fill='{self.fill}': mean, black or blurred")
        if not self.blur > 0:
            raise ValueError(f"blur is {self.blur}, and must be positive")

    def shares(self, pixels: int) -> Tensor:
        """Return the share of the pixels that have come or gone at each point, (steps + 1,)."""
        return self._counts(pixels) / pixels

    def _counts(self, pixels: int, device: torch.device | str = "cpu") -> Tensor:
        point = torch.arange(self.steps + 1, device=device)
        return torch.div(point * pixels + self.steps // 2, self.steps, rounding_mode="floor")

    def _curve(
        self, net: FrozenModel, x: Tensor, target: Tensor, rank: Tensor, noise: Noise
    ) -> Tensor:
        filled = filled_in(x, self.fill, self.blur)
        before, after = (filled, x) if self.comes else (x, filled)
        moved = self._counts(rank[0].numel(), x.device)  # pixels, at each point
        curve = x.new_empty(len(x), self.steps + 1, dtype=torch.float32)
        rows = rows_within(net, x, self.memory, gradient=False)
        for chunk in chunks(len(x), self.steps + 1, rows, x.device):
            image = chunk.image
            there = rank[image] < moved[chunk.step][:, None, None]
            logits = net(torch.where(there[:, None], after[image], before[image]))
            score = target_score(logits, target[image], "probability")
            curve[image, chunk.step] = score.float()
        return curve

    def _summary(self, curve: Tensor) -> Tensor:
        return torch.trapezoid(curve, dx=1 / self.steps, dim=1)


@MEASURES.register("deletion")
@dataclass(frozen=True, kw_only=True)
class Deletion(_PixelCurve):
    """Measure the area under the target's probability as pixels go, the hottest first.

    Lower is better: a faithful map makes the probability fall at once. Petsiuk et al. 2018 (RISE,
    arXiv 1806.07421, section 4.2). The area is that of the trapezoids between `steps` + 1 points
    evenly spread from the image to nothing left of it, in [0, 1]; `curve` gives the points
    (B, steps + 1), `shares` where they lie. Pixels of equal heat go in a random order of the
    image's own. fill: what stands in their place, "mean" (the image's own mean colour), "black",
    or "blurred" (the image under a Gaussian of `blur` pixels). An image with pixels replaced is
    none of those that the model learned from, so that part of the fall may be the model's
    surprise: compare maps of one model, and see ROAD. NaN for a map that is the same everywhere.
    steps + 1 forwards an image.
    """

    higher_is_better: ClassVar[bool] = False
    comes: ClassVar[bool] = False


@MEASURES.register("insertion")
@dataclass(frozen=True, kw_only=True)
class Insertion(_PixelCurve):
    """Measure the area under the target's probability as pixels come, the hottest first.

    Higher is better: a faithful map makes the probability rise at once. Petsiuk et al. 2018 (RISE,
    arXiv 1806.07421, section 4.2): from a blurred image to the image itself. Fields, points and
    undefined maps as in `Deletion`. steps + 1 forwards an image.
    """

    comes: ClassVar[bool] = True

    fill: Fill = "blurred"


def filled_in(x: Tensor, fill: Fill, blur: float) -> Tensor:
    """Return what stands in the place of the pixels of images (B, C, H, W), of the same shape."""
    if fill == "black":
        return torch.zeros_like(x)
    if fill == "mean":
        return x.mean((2, 3), keepdim=True).expand_as(x)
    return blurred(x, blur)
