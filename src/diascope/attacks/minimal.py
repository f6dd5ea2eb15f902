"""The smallest perturbation by any attack: a bisection of epsilon, image by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack, check_images
from diascope.attacks.trial import Trial, chunks, trial
from diascope.randomness import Noise


@dataclass(frozen=True)
class MinimalResult:
    """The result of `minimal_search`, on the host.

    epsilon (N,) float64: the smallest at which each image was broken, in pixel units; 0 where it
    is broken as it is, inf where `high` did not break it. x_adv (N, C, H, W): the broken images,
    within that epsilon; the image itself where there is none. not_finite (N,) bool: the logits
    of the image itself are not finite.
    """

    epsilon: Tensor
    x_adv: Tensor
    not_finite: Tensor

    @property
    def found(self) -> Tensor:
        """Whether each image was broken, (N,) bool."""
        return self.epsilon.isfinite()


def minimal_search(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack: Attack,
    high: float,
    low: float = 0.0,
    steps: int = 10,
    climb: bool = False,
    transfer_to: nn.Module | None = None,
    rounding: bool = False,
    batch_size: int = 64,
    chunk: int | None = None,
    generator: torch.Generator | None = None,
    ids: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
) -> MinimalResult:
    """Search the smallest epsilon in (low, high] at which `attack` breaks each image (N, C, H, W).

    Images broken by the attack at `high` are bisected `steps` times, each with an epsilon of its
    own: first the broken point is sent to the smaller ball and judged (one forward), then the
    attack runs there in full, with that point as one more start if `climb`. A point counts at its
    own norm. `attack` is any, its eps is not read; `low` is taken to be withstood. `progress`
    hears of N * (steps + 1) images in all; the other options are those of `robustness_curve`.
    Costs at most steps + 1 attacks and 2 * steps + 2 forwards an image.
    """
    check_images(x)
    if not 0 <= low < high:
        raise ValueError(f"low={low}, high={high}: 0 <= low < high is needed")
    with trial(
        model,
        x,
        attack,
        batch_size=batch_size,
        generator=generator,
        warm="climb" if climb else None,
        transfer_to=transfer_to,
        rounding=rounding,
    ) as run:
        run.check(x, y)
        numbers = Noise.of(x, generator, ids).ids
        tell = progress or (lambda count: None)
        parts = [
            _search(run, x[rows], y[rows], numbers[rows], (low, high), steps, tell)
            for rows in chunks(torch.arange(len(x)), chunk or 4 * batch_size)
        ]
        if not parts:
            empty = torch.zeros(0)
            return MinimalResult(empty.double(), x.cpu(), empty.bool())
        epsilon, x_adv, wild = (torch.cat(column) for column in zip(*parts, strict=True))
        run.warn(wild)
    return MinimalResult(epsilon, x_adv, wild)


def bisect(
    run: Trial,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    floor: Tensor,
    high: Tensor,
    found: Tensor,
    steps: int,
    tell: Callable[[int], None] = lambda count: None,
) -> tuple[Tensor, Tensor]:
    """Return smaller epsilons (B,) float64 in (floor, high] that break images, and the points.

    x, found: (B, C, H, W) on the device, the points broken as they are judged, within `high`.
    floor, high: (B,) float64 on the host; an image whose `high` is inf, or not above its floor,
    is left alone. A point found below an epsilon at which the attack failed lowers that again.
    """
    found, low = found.clone(), floor.clone()
    high = _at_own_size(run, x, found, floor, high)
    for _ in range(steps):
        middle = ((low + high) / 2).to(x.dtype).double()
        live = ((middle > low) & (middle < high)).nonzero()[:, 0]
        rows, eps = live.to(x.device), middle[live].to(x)
        given = run.threat(eps).project(found[rows], x[rows])
        outcome = run.attempt(x[rows], y[rows], ids[rows], eps, given)
        broken = outcome.broken.cpu()
        up, down = live[~broken], live[broken]
        low[up] = middle[up]
        hit = rows[outcome.broken]
        found[hit] = run.judged(outcome.points[outcome.broken], x[hit])
        high[down] = _at_own_size(run, x[hit], found[hit], floor[down], middle[down])
        low = torch.where(high > low, low, floor)
        tell(len(x))
    return high, found


def _search(
    run: Trial,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    between: tuple[float, float],
    steps: int,
    tell: Callable[[int], None],
) -> tuple[Tensor, Tensor, Tensor]:
    """Return epsilon (B,), x_adv (B, C, H, W) and not_finite (B,) of one chunk, on the host."""
    x, y, ids = x.detach().to(run.device), y.to(run.device), ids.to(run.device)
    run.judged(x, x)
    low, high = between
    broken, wild = run.clean(x, y)
    epsilon = torch.full((len(x),), torch.inf, dtype=torch.float64)
    epsilon[broken.cpu()] = 0.0
    standing, found = (~broken).nonzero()[:, 0], x.clone()
    outcome = run.attempt(x[standing], y[standing], ids[standing], high)
    hit = standing[outcome.broken]
    epsilon[hit.cpu()] = high
    found[hit] = run.judged(outcome.points[outcome.broken], x[hit])
    tell(len(x))
    floor = torch.full_like(epsilon, low)
    epsilon, found = bisect(run, x, y, ids, floor, epsilon, found, steps, tell)
    return epsilon, found.cpu(), wild.cpu()


def _at_own_size(run: Trial, x: Tensor, found: Tensor, floor: Tensor, within: Tensor) -> Tensor:
    """Return the epsilons (B,) of broken points: their norm if above the floor, or `within`."""
    size = run.threat(0.0).size(found.double() - x.double()).cpu()
    return torch.where(size > floor, torch.minimum(size, within), within)
