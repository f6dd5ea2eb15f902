"""Images that stand for the absence of what is explained."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from diascope.randomness import Noise

BaselineName = Literal["uniform", "gaussian", "black", "white", "blurred", "mean"]
Baseline = BaselineName | Callable[[Tensor], Tensor] | Tensor

NOISY = ("uniform", "gaussian")
_TOGETHER = 16  # images whose noise is drawn at once: drawing takes several times their memory


class Given:
    """A baseline given as a tensor, (C, H, W) or (B, C, H, W); equal only to itself."""

    def __init__(self, image: Tensor) -> None:
        if image.ndim not in (3, 4):
            raise ValueError(
                f"baseline of shape {tuple(image.shape)}: (C, H, W) or (B, C, H, W) is needed"
            )
        self.image = image.detach()

    def __call__(self, x: Tensor) -> Tensor:
        """Return the baseline of each image."""
        return self.image.to(x)


def check_baseline(baseline: Baseline | Given) -> None:
    """Raise ValueError unless `baseline` is a name that is known, or callable."""
    if not callable(baseline) and baseline not in get_args(BaselineName):
        names = ", ".join(get_args(BaselineName))
        raise ValueError(f"baseline={baseline!r}: one of {names}, a function or a tensor")


def baseline_of(
    x: Tensor,
    baseline: BaselineName | Callable[[Tensor], Tensor],
    noise: Noise,
    draw: int,
    *,
    sigma: float,
    blur: float,
    clip: bool,
) -> Tensor:
    """Return the baselines (B, C, H, W) of images x of that shape, of x's kind of number.

    The names are those of `IntegratedGradients`. Noise comes from the numbered `draw`.
    """
    x = x.detach()
    if not isinstance(baseline, str):
        found = baseline(x)
        if found.shape not in (x.shape, x.shape[1:]):
            raise ValueError(
                f"baseline of shape {tuple(found.shape)} for images {tuple(x.shape)}: one image "
                "for all is needed, or one for each"
            )
        return found.detach().to(x).expand_as(x)
    if baseline in NOISY:
        return _noisy(x, baseline, noise, draw, sigma, clip)
    if baseline == "blurred":
        return blurred(x, blur)
    if baseline == "mean":
        return x.mean((2, 3), keepdim=True).expand_as(x)
    return torch.full_like(x, float(baseline == "white"))


def _noisy(x: Tensor, kind: str, noise: Noise, draw: int, sigma: float, clip: bool) -> Tensor:
    made = torch.empty_like(x)
    for start in range(0, len(x), _TOGETHER):
        part = slice(start, start + _TOGETHER)
        of_part = Noise(noise.seed, noise.ids[part])
        if kind == "uniform":
            made[part] = of_part.uniform(x.shape[1:], draw)
        else:
            made[part] = x[part] + sigma * of_part.normal(x.shape[1:], draw)
    return made.clamp_(0, 1) if clip else made


def blurred(x: Tensor, sigma: float) -> Tensor:
    """Return images (B, C, H, W) blurred by a Gaussian of `sigma` pixels.

    Near an edge the weights of the pixels inside are scaled to sum to one, so that a flat image
    stays flat. Two matrix products.
    """
    down, across = (_blur_matrix(n, sigma, x) for n in x.shape[2:])
    return down @ x @ across.T


def _blur_matrix(size: int, sigma: float, like: Tensor) -> Tensor:
    place = torch.arange(size, dtype=like.dtype, device=like.device)
    weights = (-0.5 * ((place[:, None] - place[None]) / sigma) ** 2).exp()
    return weights / weights.sum(1, keepdim=True)
