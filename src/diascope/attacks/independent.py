"""Accuracy at each epsilon by itself: what a curve is compared with, and masking is seen by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack, check_images
from diascope.attacks.trial import chunks, trial
from diascope.randomness import Noise


def independent_accuracy(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    attack: Attack,
    epsilons: Sequence[float],
    transfer_to: nn.Module | None = None,
    rounding: bool = False,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
    ids: Tensor | None = None,
) -> Tensor:
    """Return the share of images that withstand each of `epsilons`, (E,) in the order given.

    Every epsilon is a run of its own, from the same noise, on all images (N, C, H, W) that are
    classified correctly without an attack: nothing is carried over, so that the accuracy may
    rise with epsilon, which is a sign of masked gradients. Arguments as for `robustness_curve`.
    """
    check_images(x)
    check_epsilons(epsilons)
    kept = torch.zeros(len(epsilons), dtype=torch.float64)
    wild = torch.zeros(len(x), dtype=torch.bool)
    with trial(
        model,
        x,
        attack,
        batch_size=batch_size,
        generator=generator,
        transfer_to=transfer_to,
        rounding=rounding,
    ) as run:
        run.check(x, y)
        ids = Noise.of(x, generator, ids).ids
        for rows in chunks(torch.arange(len(x)), batch_size):
            xs, ys, numbers = (t[rows].to(run.device) for t in (x.detach(), y, ids))
            run.judged(xs, xs)
            broken, not_finite = run.clean(xs, ys)
            wild[rows], left = not_finite.cpu(), (~broken).nonzero()[:, 0]
            for place, eps in enumerate(epsilons):
                kept[place] += len(left)
                if eps > 0:
                    outcome = run.attempt(xs[left], ys[left], numbers[left], float(eps))
                    kept[place] -= int(outcome.broken.sum())
        run.warn(wild)
    return kept / len(x)


def check_epsilons(epsilons: Sequence[float]) -> None:
    """Raise ValueError unless there is one at least, and each is finite and at least 0."""
    if not len(epsilons) or not all(0 <= float(e) < torch.inf for e in epsilons):
        raise ValueError("epsilons must be finite numbers of at least 0, and one at least")
