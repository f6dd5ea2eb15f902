"""Infidelity: does the map foretell how far the score falls when the image is changed?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diascope.evaluation.measures import MEASURES
from diascope.evaluation.measures.faithfulness import noise_of
from diascope.explain.base import checked_targets
from diascope.explain.chunks import chunks, rows_within
from diascope.models.frozen import Arithmetic, frozen
from diascope.models.heads import target_score
from diascope.randomness import Noise


@MEASURES.register("infidelity")
@dataclass(frozen=True, kw_only=True)
class Infidelity:
    """Measure the mean squared error of the map as a forecast of the score's fall; lower is better.

    E over perturbations I of (s I.map - (f(x) - f(x - I)))^2 (Yeh et al. 2019, arXiv 1901.09392,
    definition 2.1). `heat` may be the raw signed attribution (B, C or 1, H, W), for which this is
    meant, or a map (B, H, W), taken as the same for every channel.

    perturbation: "square" replaces a square of `size` times the shorter side, anywhere in the
    image, by the image's mean colour; "gaussian" is normal noise of standard deviation `sigma` in
    pixel units. scaled: with the factor s of each image that suits its map best (section 2.3), for
    a map has no unit, else s = 1. relative: divided by E (f(x) - f(x - I))^2, so that models
    with larger scores do not fare worse; then 1 is what a map of zeros has, and the most a scaled
    one can have. of: f, as in `heads.target_score`.

    In [0, inf). A map that is the same everywhere is a forecast like any other. NaN where the map
    or the model's answer is not finite, and, if relative, where no perturbation moves the score.
    samples + 1 forwards an image.
    """

    family: ClassVar[str] = "faithfulness"
    higher_is_better: ClassVar[bool] = False
    limits: ClassVar[tuple[float, float]] = (0.0, float("inf"))

    samples: int = 50
    perturbation: Literal["square", "gaussian"] = "square"
    size: float = 0.25
    sigma: float = 0.03
    scaled: bool = True
    relative: bool = False
    of: Literal["logit", "log_softmax", "probability"] = "logit"
    seed: int = 0
    precision: Arithmetic = "float32"
    memory: int = 2**30

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples is {self.samples}, and must be at least 1")
        if self.perturbation not in ("square", "gaussian"):
            raise ValueError(f"perturbation='{self.perturbation}': square or gaussian")
        if not (0 < self.size <= 1 and self.sigma > 0):
            raise ValueError(f"size {self.size} must lie in (0, 1], sigma {self.sigma} above 0")

    @torch.no_grad()
    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        heat: Tensor,
        *,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the infidelity of each image (B,), NaN where it is not defined."""
        heat = heat[:, None] if heat.ndim == 3 else heat
        fits = x.ndim == heat.ndim == 4 and heat.shape[1] in (1, x.shape[1])
        if not fits or len(heat) != len(x) or heat.shape[2:] != x.shape[2:]:
            raise ValueError(
                f"x {tuple(x.shape)} and heat {tuple(heat.shape)}: expected (B, C, H, W), "
                "and (B, H, W) or (B, C or 1, H, W)"
            )
        if not len(x):
            return x.new_zeros(0, dtype=torch.float32)
        x, heat = x.detach(), heat.detach().to(x).float()
        noise = noise_of(x, self.seed, "infidelity", ids)
        forecast = x.new_zeros(len(x), self.samples + 1, dtype=torch.float64)
        score = torch.zeros_like(forecast)
        with frozen(model, x, precision=self.precision) as net:
            targets = checked_targets(net, x, target)
            rows = rows_within(net, x, self.memory, gradient=False)
            for chunk in chunks(len(x), self.samples + 1, rows, x.device):
                image, step = chunk.image, chunk.step
                ids_here = noise.ids[image] * (self.samples + 1) + step
                change = self.perturbations(x[image], Noise(noise.seed, ids_here))
                change *= (step < self.samples)[:, None, None, None]  # the last is the image itself
                logits = net(x[image] - change)
                score[image, step] = target_score(logits, targets[image], self.of).double()
                forecast[image, step] = (heat[image] * change).flatten(1).sum(1).double()
        return self._summary(forecast[:, :-1], score[:, -1:] - score[:, :-1]).float()

    def perturbations(self, x: Tensor, noise: Noise) -> Tensor:
        """Return one change I of each image (B, C, H, W), of the same shape: it becomes x - I."""
        if self.perturbation == "gaussian":
            return noise.normal(x.shape[1:]).to(x).mul_(self.sigma)
        height, width = x.shape[2:]
        side = max(1, round(self.size * min(height, width)))
        corner = noise.uniform((2,)) * torch.tensor(
            [height - side + 1, width - side + 1], device=x.device
        )
        top, left = corner.long().unbind(1)
        rows = torch.arange(height, device=x.device) - top[:, None]  # (B, H)
        columns = torch.arange(width, device=x.device) - left[:, None]
        inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[
            :, None
        ]
        return (x - x.mean((2, 3), keepdim=True)) * inside[:, None]

    def _summary(self, forecast: Tensor, fall: Tensor) -> Tensor:
        """Return the error of forecasts (B, samples) of the falls, (B,)."""
        if self.scaled:
            power = forecast.square().sum(1)
            factor = (forecast * fall).sum(1) / torch.where(power > 0, power, 1.0)
            forecast = factor[:, None] * forecast
        error = (forecast - fall).square().mean(1)
        error = error / fall.square().mean(1) if self.relative else error
        return torch.where(error.isfinite(), error, torch.nan)
