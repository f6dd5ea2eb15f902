"""Gradients averaged over noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diascope.explain.base import Rectification, checked_targets, explainers
from diascope.explain.chunks import Chunk, chunks, rows_within
from diascope.explain.gradient import Score, input_gradient
from diascope.explain.sums import AtImages, sums_of
from diascope.models.frozen import Arithmetic, frozen
from diascope.randomness import Noise

_APART = 1_000_003  # the noise of an image's samples has ids of its own, this far apart


@explainers.register("smoothgrad")
@dataclass(frozen=True, kw_only=True)
class SmoothGrad:
    """The mean gradient of copies of the image with normal noise (Smilkov et al. 2017, section 3).

    samples: how many copies. noise: the standard deviation as a share of the image's own range,
    from its least to its greatest value (the paper's 10% to 20%). The noisy images are not
    clipped: the paper does not clip them, and it would move their mean. variant: "mean" of the
    gradients; "squared", the mean of their squares (Hooker et al. 2019); "variance" (VarGrad,
    Adebayo et al. 2018), their variance with divisor `samples`; these two are not negative. of,
    precision, memory: as in `Gradient`; sums are in x's precision.

    Costs `samples` forward and backward passes.
    """

    rectification: ClassVar[Rectification] = "absolute"

    samples: int = 25
    noise: float = 0.15
    variant: Literal["mean", "squared", "variance"] = "mean"
    of: Score = "logit"
    precision: Arithmetic = "auto"
    memory: int = 2**30

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples={self.samples}: at least 1 is needed")
        if not self.noise >= 0:
            raise ValueError(f"noise={self.noise}: must be at least 0")

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
            targets = checked_targets(net, x, target)
            return self._gathered(net, x, targets, noise)

    def passes(self, side: int) -> float:
        """Return the cost of an image, see `passes_of`."""
        return 3 * self.samples

    def _gathered(self, net: nn.Module, x: Tensor, targets: Tensor, noise: Noise) -> Tensor:
        sigma = self.noise * (x.amax((1, 2, 3)) - x.amin((1, 2, 3))).view(-1, 1, 1, 1)
        every = chunks(len(x), self.samples, rows_within(net, x, self.memory), x.device)
        noisy = ((chunk, _noisy(x, sigma, noise, chunk)) for chunk in every)
        if self.variant == "mean":
            return self._mean(sums_of(net, x, targets, self.of, self.samples), noisy)
        return self._of_squares(net, x, targets, noisy)

    def _mean(self, sums: AtImages, noisy: Iterable[tuple[Chunk, Tensor]]) -> Tensor:
        for chunk, at in noisy:
            sums.add(chunk, at, at.new_ones(len(at)))
        return sums.total.div_(self.samples)

    def _of_squares(
        self, net: nn.Module, x: Tensor, targets: Tensor, noisy: Iterable[tuple[Chunk, Tensor]]
    ) -> Tensor:
        """Return the mean of the squared gradients, less that of the gradients for a variance."""
        mean, squares = torch.zeros_like(x), torch.zeros_like(x)
        for chunk, at in noisy:
            gradient = input_gradient(net, at, targets[chunk.image], self.of)
            chunk.add_to(mean, gradient)
            chunk.add_to(squares, gradient.square())
        mean, squares = mean.div_(self.samples), squares.div_(self.samples)
        return squares if self.variant == "squared" else (squares - mean.square()).clamp_min_(0)


def _noisy(x: Tensor, sigma: Tensor, noise: Noise, chunk: Chunk) -> Tensor:
    """Return the noisy images of a chunk; sigma: of each image, (B, 1, 1, 1)."""
    drawn = Noise(noise.seed, noise.ids[chunk.image] * _APART + chunk.step)
    return _normal(drawn, x.shape[1:]).to(x).mul_(sigma[chunk.image]).add_(x[chunk.image])


def _normal(noise: Noise, shape: Sequence[int]) -> Tensor:
    """Return float32 standard normal values, (B, *shape), in half the time of `Noise.normal`.

    Each 32 bits give a radius and an angle of 16 bits (Box and Muller 1958) and so two values, at
    most 4.9 in size: fine enough for noise whose mean is taken.
    """
    count = math.prod(shape)
    half = (count + 1) // 2
    bits = noise.bits((half,))
    angle = (bits & 0xFFFF).float().mul_(2 * math.pi * 2.0**-16)
    u = ((bits >> 16) & 0xFFFF).float().add_(0.5).mul_(2.0**-16)  # (0, 1)
    radius = u.log_().mul_(-2.0).sqrt_()
    pair = torch.cat([radius * angle.cos(), radius.mul_(angle.sin_())], 1)
    return pair[:, :count].reshape(len(bits), *shape)
