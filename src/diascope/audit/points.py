"""Where an attack takes images at several epsilons, as the robustness curve judges them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn

from diascope.attacks import Attack, BoundaryAttack, Threat, at_eps, robustness_curve
from diascope.attacks.base import verdict

Seeded = Callable[[], torch.Generator]


def attacked_points(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    *,
    attack: Attack,
    epsilons: Sequence[float],
    grid: Sequence[float],
    minimal: Tensor,
    seeded: Seeded,
) -> Iterator[tuple[float, Tensor]]:
    """Yield each of `epsilons` (ascending) with the points (B, C, H, W) of images attacked there.

    At full strength, but that the curve calls an image broken by any point on the way, or by one
    of a smaller epsilon: where `minimal` (B,), the smallest epsilon of `grid` that breaks an image
    (NaN where it is not known), says so and the attack missed, the curve's own point is taken. An
    image that fell at one of `epsilons` stays broken at the next, by the same point if need be.
    Should the attack by itself break an image where the curve says that it stands, which masked
    gradients may do, its point is given as it is. `seeded` makes the generator of the curve; the
    Boundary Attack walks once for all epsilons.
    """
    minimal, ascending = minimal.to(x.device), sorted(epsilons)
    if isinstance(attack, BoundaryAttack):
        yield from _of_one_walk(model, x, y, ids, attack, ascending, seeded)
        return
    points = x
    broken = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for eps in ascending:
        fresh = at_eps(attack, eps)(model, x, y, generator=seeded(), ids=ids)
        hit = verdict(model, fresh, y)
        rows = (~hit & (minimal <= eps)).nonzero()[:, 0]
        if len(rows):
            curve = robustness_curve(
                model,
                x[rows],
                y[rows],
                attack=attack,
                epsilons=[e for e in grid if e <= eps],
                keep_x_adv=True,
                generator=seeded(),
                ids=ids[rows],
            )
            assert curve.x_adv is not None
            fresh[rows] = curve.x_adv.to(fresh)
            hit[rows] = verdict(model, fresh[rows], y[rows])
        points = torch.where((broken & ~hit)[:, None, None, None], points, fresh)
        broken = broken | hit
        yield eps, points


def _of_one_walk(
    model: nn.Module,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    attack: BoundaryAttack,
    epsilons: Sequence[float],
    seeded: Seeded,
) -> Iterator[tuple[float, Tensor]]:
    """Yield the nearest point found where it lies within an epsilon, else the image itself."""
    walk = attack.run(model, x, y, generator=seeded(), ids=ids)
    size = Threat(attack.norm, 0).size(walk.x_adv - x).double() * (1 - 1e-6)
    for eps in epsilons:
        near = walk.started & (size <= eps)
        yield eps, torch.where(near[:, None, None, None], walk.x_adv, x)
