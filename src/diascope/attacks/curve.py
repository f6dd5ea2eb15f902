"""The robustness curve: accuracy as the ball grows, and the epsilon that breaks each image."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack, at_eps, check_images
from diascope.models.heads import is_correct
from diascope.models.modes import exactly
from diascope.randomness import Noise


@dataclass(frozen=True)
class RobustnessCurve:
    """The result of `robustness_curve`, on the host.

    epsilons (E,): ascending, in pixel units; minimal_epsilon (N,): the smallest of them at which
    an image was misclassified, 0 where it already is without an attack, inf where none broke it;
    attacked (E,): how many images had to be attacked at each epsilon.
    """

    epsilons: Tensor
    minimal_epsilon: Tensor
    attacked: Tensor

    @property
    def correct(self) -> Tensor:
        """Whether each image withstands each epsilon, (N, E) bool."""
        return self.minimal_epsilon[:, None] > self.epsilons[None]

    @property
    def accuracy(self) -> Tensor:
        """The share of images that withstand each epsilon, (E,), never rising with it."""
        return self.correct.double().mean(0)


def robustness_curve(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack: Attack,
    epsilons: Sequence[float],
    batch_size: int = 64,
    generator: torch.Generator | None = None,
    ids: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
) -> RobustnessCurve:
    """Attack images (N, C, H, W) at ascending `epsilons`, only those that still stand.

    Balls are nested: an image broken at one epsilon is broken at every larger one, so it is not
    attacked again, and the curve cannot rise. Whether an image is broken is decided by the model
    in float32 eval mode, never under autocast. Epsilon 0, which need not be given, is the clean
    verdict. `ids` (N,) number the images, so that the result does not depend on `batch_size`;
    `progress` is told the number of images each time some are settled at an epsilon.

    Not a check for masked gradients: those need independent runs at each epsilon.
    """
    check_images(x)
    grid = sorted({float(e) for e in epsilons})
    if not grid or grid[0] < 0:
        raise ValueError("epsilons must be numbers of at least 0, and one at least")
    noise = Noise.of(x, generator, ids)
    minimal = torch.full((len(x),), torch.inf, dtype=torch.float64)
    minimal[~_verdict(model, x, y, batch_size)] = 0.0
    attacked = []
    for eps in grid:
        standing = minimal.isinf().nonzero()[:, 0] if eps > 0 else torch.empty(0, dtype=torch.long)
        attacked.append(len(standing))
        if progress is not None:
            progress(len(x) - len(standing))
        for part in torch.split(standing, batch_size):
            rows = part.to(x.device)
            seeded = torch.Generator().manual_seed(noise.seed)
            x_adv = at_eps(attack, eps)(
                model, x[rows], y[rows], generator=seeded, ids=noise.ids[rows]
            )
            minimal[part[~_verdict(model, x_adv, y[rows], batch_size)]] = eps
            if progress is not None:
                progress(len(part))
    return RobustnessCurve(torch.tensor(grid, dtype=torch.float64), minimal, torch.tensor(attacked))


@torch.no_grad()
def _verdict(model: nn.Module, x: Tensor, y: Tensor, batch_size: int) -> Tensor:
    """Return whether each image is classified correctly, in float32, (N,) on the host."""
    with exactly(model) as inner:
        parts = [
            is_correct(inner(xs if xs.dtype == torch.float64 else xs.float()), ys).cpu()
            for xs, ys in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
        ]
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.bool)
