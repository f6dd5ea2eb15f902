"""Gradients gathered on the way from a baseline to the image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from diascope.explain.base import Rectification, checked_targets, explainers
from diascope.explain.baselines import NOISY, Baseline, Given, baseline_of, check_baseline
from diascope.explain.chunks import chunks, rows_within
from diascope.explain.gradient import Score
from diascope.explain.sums import sums_of
from diascope.models.frozen import Arithmetic, frozen
from diascope.models.heads import target_score
from diascope.models.modes import exactly
from diascope.randomness import Noise

Rule = Literal["gausslegendre", "midpoint", "trapezoid"]


def quadrature(rule: Rule, steps: int) -> tuple[Tensor, Tensor]:
    """Return the points in [0, 1] and the weights, which sum to 1, (steps,) float64 each."""
    if rule == "gausslegendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return torch.from_numpy((1 + nodes) / 2), torch.from_numpy(weights / 2)
    if rule == "midpoint":
        points = (torch.arange(steps, dtype=torch.float64) + 0.5) / steps
        return points, torch.full_like(points, 1 / steps)
    points = torch.linspace(0, 1, steps, dtype=torch.float64)
    even = torch.full_like(points, 1 / (steps - 1))
    even[0], even[-1] = even[0] / 2, even[-1] / 2
    return points, even


@explainers.register("integrated_gradients")
@dataclass(frozen=True, kw_only=True)
class IntegratedGradients:
    """The difference to a baseline times the mean gradient on the straight way from it.

    (x - x') * integral of the gradient at x' + a (x - x') over a in [0, 1] (Sundararajan et al.
    2017, equation 1; P1, equation 2). The map sums to score(x) - score(x') up to the error of the
    integral (`completeness`).

    baseline x': "uniform", each value drawn from [0, 1] (P1 B.2); "gaussian", the image plus
    normal noise of `sigma` (P1 B.2, after Sturmfels et al. 2020); "black", "white"; "blurred",
    the image under a Gaussian of `blur` pixels (Sturmfels et al. 2020); "mean", the image's own
    mean colour; or a tensor (C, H, W) or (B, C, H, W), or a function from images to baselines:
    these two are equal only to themselves and do not go to settings. P1 shows that black hides
    what is dark itself. sigma: in pixel units, whose whole range is 1, as in P1. clip: keep
    "gaussian" within [0, 1]; P1 does not speak of it, and does add the noise to the image, so that
    by default nothing is cut off. draws: how many noise baselines are averaged, each drawn anew;
    of the others there is one. steps: points on the way. rule: "gausslegendre", "midpoint" or
    "trapezoid" (with both ends). of: the score, as in `Gradient`. precision: of the gradients;
    sums are in x's. memory: the bytes that activations may take.

    Costs draws * steps forward and backward passes.
    """

    rectification: ClassVar[Rectification] = "absolute"
    sums_itself: ClassVar[bool] = True

    baseline: Baseline = "uniform"
    draws: int = 1
    steps: int = 50
    rule: Rule = "gausslegendre"
    sigma: float = 1.0
    blur: float = 20.0
    clip: bool = False
    of: Score = "logit"
    precision: Arithmetic = "auto"
    memory: int = 2**30

    def __post_init__(self) -> None:
        if isinstance(self.baseline, Tensor):
            object.__setattr__(self, "baseline", Given(self.baseline))
        check_baseline(self.baseline)
        for name in ("draws", "steps", "sigma", "blur"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)}: must be above 0")
        if self.rule == "trapezoid" and self.steps < 2:
            raise ValueError("rule='trapezoid' needs at least 2 steps")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the attribution of images (B, C, H, W) in [0, 1], of the same shape.

        Raises ValueError for classes that the model does not have.
        """
        if not len(x):
            return torch.empty_like(x)
        x, noise = x.detach(), Noise.of(x, generator, ids)
        with frozen(model, x[:1], precision=self.precision, exact_pooling=True) as net:
            targets, total = checked_targets(net, x, target), torch.zeros_like(x)
            way = [v.to(x) for v in quadrature(self.rule, self.steps)]
            for baseline in self._baselines(x, noise):
                gradient = self._mean_gradient(net, x, baseline, targets, *way)
                total += gradient.mul_(x - baseline)
        return total / self._draws

    def passes(self, side: int) -> float:
        """Return the cost of an image, see `passes_of`."""
        return 3 * self._draws * self.steps

    @property
    def _draws(self) -> int:
        return self.draws if self.baseline in NOISY else 1

    def _baselines(self, x: Tensor, noise: Noise) -> Iterator[Tensor]:
        assert not isinstance(self.baseline, Tensor)
        for draw in range(self._draws):
            yield baseline_of(
                x, self.baseline, noise, draw, sigma=self.sigma, blur=self.blur, clip=self.clip
            )

    def _mean_gradient(
        self,
        net: nn.Module,
        x: Tensor,
        baseline: Tensor,
        targets: Tensor,
        points: Tensor,
        weights: Tensor,
    ) -> Tensor:
        """Return the gradient integrated over the points (S,) of the way, (B, C, H, W)."""
        sums = sums_of(net, x, targets, self.of, self.steps)
        for chunk in chunks(len(x), self.steps, rows_within(net, x, self.memory), x.device):
            sums.add_between(chunk, (baseline, x), points[chunk.step], weights[chunk.step])
        return sums.total

    def total(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the sum of each image's attribution, (B,)."""
        return self(model, x, target, generator=generator, ids=ids).flatten(1).sum(1)

    @torch.no_grad()
    def due(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return score(x) - score(baseline), the mean over draws, (B,).

        It is asked of the model itself in float32. Costs 1 + draws forward passes.
        """
        if not len(x):
            return x.new_empty(0)
        noise = Noise.of(x, generator, ids)
        with frozen(model, x[:1], precision="float32") as net:
            targets = checked_targets(net, x, target)
        with exactly(model) as inner:
            rows = rows_within(inner, x, self.memory, gradient=False)
            score = _scores(inner, x, targets, self.of, rows)
            others = [
                _scores(inner, baseline, targets, self.of, rows)
                for baseline in self._baselines(x, noise)
            ]
        return score - torch.stack(others).mean(0)


def _scores(net: nn.Module, x: Tensor, targets: Tensor, of: Score, rows: int) -> Tensor:
    parts = zip(torch.split(x, rows), torch.split(targets, rows), strict=True)
    return torch.cat([target_score(net(xs), ys, of) for xs, ys in parts])
