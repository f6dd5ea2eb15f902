"""Faithfulness: does the map name the pixels that the model's answer rests on?

A measure is called with `model`, images `x` (B, C, H, W) in [0, 1], the explained class `target`
(B,) or one int, and `heat` (B, H, W), not negative; it changes the images as the map says, and
looks at what the model makes of them. It returns float32 (B,). What is defined:

- a map that is not finite: NaN;
- a map that is the same everywhere has no order: NaN where the order of the pixels is measured;
- a model whose answer is not finite: NaN.

Each image is measured by itself: its random numbers come from the measure's `seed` and from the
image's id, or, where none is given, from its pixels.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from diascope.explain.base import checked_targets
from diascope.models.frozen import Arithmetic, FrozenModel, frozen
from diascope.randomness import Noise, derive

_ODD = 0x1E3779B97F4A7C15


@dataclass(frozen=True, kw_only=True)
class Faithfulness(ABC):
    """The base of the family: checks the input, freezes the model, leaves undefined images out.

    seed: of ties and noise. precision: the arithmetic of the forwards; float32, for the scores
    are reported, and bfloat16 moves a probability by up to a hundredth. memory: the budget in
    bytes for activations, by which the images go through the model in chunks.
    """

    family: ClassVar[str] = "faithfulness"
    higher_is_better: ClassVar[bool] = True
    limits: ClassVar[tuple[float, float]] = (-1.0, 1.0)

    seed: int = 0
    precision: Arithmetic = "float32"
    memory: int = 2**30

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        heat: Tensor,
        *,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the measure of each image (B,), NaN where it is not defined.

        Raises `ValueError` for shapes that do not fit, and for negative heat.
        """
        curve = self.curve(model, x, target, heat, ids=ids)
        return self._summary(curve) if len(curve) else curve.new_zeros(0)

    @torch.no_grad()
    def curve(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        heat: Tensor,
        *,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return what the measure sums up, (B, ...); NaN throughout for undefined images."""
        check_maps(x, heat)
        x, heat = x.detach(), heat.detach().to(x.device).float() + 0.0
        flat = heat.flatten(1)
        defined = flat.isfinite().all(1) & (flat.amax(1) > flat.amin(1))
        heat = torch.where(defined[:, None, None], heat, 0.0)
        if (heat < 0).any():
            raise ValueError("heat is negative: render a signed attribution first")
        noise = noise_of(x, self.seed, type(self).__name__, ids)
        if not len(x):
            return x.new_zeros(0, dtype=torch.float32)
        with frozen(model, x, precision=self.precision) as net:
            targets = checked_targets(net, x, target)
            curve = self._curve(net, x, targets, ranks(heat, noise), noise)
        defined = defined.view(-1, *[1] * (curve.ndim - 1))
        return torch.where(defined & curve.isfinite(), curve, torch.nan)

    @abstractmethod
    def _curve(
        self, net: FrozenModel, x: Tensor, target: Tensor, rank: Tensor, noise: Noise
    ) -> Tensor:
        """Return the scores (B, ...) as pixels go or come in the order `rank` (B, H, W)."""

    @abstractmethod
    def _summary(self, curve: Tensor) -> Tensor:
        """Return the number of each curve, (B, ...) -> (B,)."""


def check_maps(x: Tensor, heat: Tensor) -> None:
    """Raise `ValueError` where maps (B, H, W) do not belong to images (B, C, H, W)."""
    if x.ndim != 4 or heat.shape != (len(x), *x.shape[2:]):
        raise ValueError(
            f"x {tuple(x.shape)} and heat {tuple(heat.shape)}: expected (B, C, H, W) and (B, H, W)"
        )


def noise_of(x: Tensor, seed: int, what: str, ids: Tensor | None = None) -> Noise:
    """Return the random numbers of images (B, C, H, W), for one use (`what`) of a seed.

    Without `ids` they belong to an image's pixels, so that they follow it into any batch.
    """
    return Noise(derive(seed, what), content_ids(x) if ids is None else ids.to(x.device))


def content_ids(x: Tensor) -> Tensor:
    """Return one integer for the pixels of each image, (B,) int64, the same on every device."""
    bits = x.detach().float().contiguous().flatten(1).view(torch.int32).long()
    place = torch.arange(bits.shape[1], device=x.device)
    return (bits * ((2 * place + 1) * _ODD)).sum(1)


def ranks(heat: Tensor, noise: Noise) -> Tensor:
    """Return the place of each pixel when the heat falls, (B, H, W) int64: 0 is the hottest.

    heat: finite and not negative. Pixels of equal heat are in a random order, each image's own.
    """
    bits = heat.contiguous().flatten(1).view(torch.int32).long()  # ordered as the floats are
    ties = noise.bits((bits.shape[1],)).long() & 0xFFFFFFFF  # all different
    order = (bits << 32 | ties).argsort(1, descending=True)
    place = torch.arange(bits.shape[1], device=heat.device).expand_as(order)
    return torch.empty_like(order).scatter_(1, order, place).view_as(heat)
