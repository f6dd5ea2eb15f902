"""ROAD, remove and debias: pixels go, and what they leave gives no more away than it must."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from diascope.evaluation.imputation import TOLERANCE, impute
from diascope.evaluation.measures import MEASURES
from diascope.evaluation.measures.faithfulness import Faithfulness
from diascope.explain.chunks import rows_within
from diascope.models import heads
from diascope.models.frozen import FrozenModel
from diascope.randomness import Noise


@MEASURES.register("road")
@dataclass(frozen=True, kw_only=True)
class ROAD(Faithfulness):
    """Measure how much more is lost with the hottest pixels than with the coldest.

    Rong et al. 2022 (arXiv 2202.00449). At each of `shares` the most relevant pixels are removed
    (MoRF), and apart from that as many of the least relevant (LeRF); the removed ones are filled
    in by their neighbours (`diascope.evaluation.imputation.impute`), with normal noise of standard
    deviation `noise` in pixel units, so that the shape of what was removed is hard to see. The
    measure is the mean over `shares` of the score under LeRF less that under MoRF, in [-1, 1],
    higher is better; a random map has 0 on average. grad-cam's ROADCombined is half of that.

    of: the score, "probability" of the target, or "accuracy", 1 where the target is still what
    the model predicts, else 0 (the paper's, which averages it over images). `curve` gives the
    scores (B, 2, shares), MoRF first. Pixels of equal heat go in a random order of the image's
    own. NaN for a map that is the same everywhere. Filled images are not clamped to [0, 1].
    Two forwards and two imputations an image and share.
    """

    shares: tuple[float, ...] = (0.2, 0.4, 0.6, 0.8)
    of: Literal["probability", "accuracy"] = "probability"
    noise: float = 0.01
    tolerance: float = TOLERANCE

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in zip(self.shares, self.shares[1:], strict=False))
        if not self.shares or not rising or not 0 < self.shares[0] <= self.shares[-1] < 1:
            raise ValueError(f"shares are {self.shares}, and must rise between 0 and 1")
        if self.of not in ("probability", "accuracy"):
            raise ValueError(f"of='{self.of}': probability or accuracy")
        if not (self.noise >= 0 and self.tolerance > 0):
            raise ValueError(
                f"noise is {self.noise}, tolerance {self.tolerance}: neither may be negative, "
                "nor the tolerance zero"
            )

    def _curve(
        self, net: FrozenModel, x: Tensor, target: Tensor, rank: Tensor, noise: Noise
    ) -> Tensor:
        curve = x.new_empty(len(x), 2, len(self.shares), dtype=torch.float32)
        rows = rows_within(net, x, self.memory, gradient=False)
        last = rank[0].numel() - 1
        for first in range(0, len(x), rows):
            part = torch.arange(first, min(first + rows, len(x)), device=x.device)
            for side, place in enumerate((rank[part], last - rank[part])):
                filled = x[part]
                for number, share in enumerate(self.shares):
                    removed = place < min(round(share * (last + 1)), last)
                    filled = impute(x[part], removed, start=filled, tolerance=self.tolerance)
                    drawn = noise.take(part).normal(x.shape[1:], 1 + 2 * number + side)
                    shown = filled.addcmul(removed[:, None].float(), drawn, value=self.noise)
                    curve[part, side, number] = self._score(net(shown.to(x)), target[part]).float()
        return curve

    def _score(self, logits: Tensor, target: Tensor) -> Tensor:
        if self.of == "probability":
            return heads.target_score(logits, target, "probability")
        hit = heads.predictions(logits) == target
        return torch.where(logits.isfinite().all(1), hit.float(), torch.nan)

    def _summary(self, curve: Tensor) -> Tensor:
        return (curve[:, 1] - curve[:, 0]).mean(1)
