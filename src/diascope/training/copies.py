"""Adversarial copies of images at 8 bits, to be added to a training set."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diascope.attacks import Attack, BoundaryAttack, Threat
from diascope.attacks.base import verdict
from diascope.randomness import Noise, derive

# How far beyond a point of the boundary its 8-bit neighbour is looked for, as multiples of the way.
PUSHES = (1.0, 1.02, 1.05, 1.1, 1.25, 1.5, 2.0, 3.0)
_HALVINGS = 30
COUNTS = ("images", "wrong", "unstarted", "unchanged", "added", "fooled", "fooled_8bit")


@dataclass(frozen=True)
class Copies:
    """The copies of a batch: images (n, H, W, C), and `of` (n,), the place of each one's original.

    `counts`: images, how many were attacked; wrong, of them misclassified as they are; unstarted,
    for which a decision-based attack found no starting point; unchanged, the others that the attack
    gave back as they were (at 8 bits); added, the rest, which are the copies; fooled, how many
    copies are misclassified as the attack made them; fooled_8bit, as they are kept.
    """

    images: NDArray[np.uint8]
    of: NDArray[np.int64]
    counts: dict[str, int]


def adversarial_copies(
    model: nn.Module,
    attack: Attack,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    *,
    seed: int,
    others: Tensor | None = None,
    astray: bool = False,
) -> Copies:
    """Attack images x (B, C, H, W), at 8 bits, with labels y (B,); return what becomes of them.

    An image's noise belongs to (seed, id). Copies within an eps are rounded towards their
    original, so that they stay in the ball, though fewer may fool the model: both are counted, and
    those that do not are kept, as adversarial training keeps them. The points of an attack without
    an eps lie on the boundary, where rounding undoes half of them: the nearest at 1 to 3 times the
    way is taken whose 8-bit neighbour still fools the model. others (M, C, H, W): images at which
    a decision-based attack may start. astray: each copy is its image with random noise instead,
    as far from it in L2 as the attack's would be, a control of the direction. Costs the attack and
    3 forwards an image (up to 10 without an eps).
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(attack, BoundaryAttack):
        result = attack.run(model, x, y, others=others, generator=generator, ids=ids)
        x_adv, started = result.x_adv, result.started
    else:
        x_adv = attack(model, x, y, generator=generator, ids=ids)
        started = torch.ones(len(x), dtype=torch.bool, device=x.device)
    wrong = verdict(model, x, y, batch_size=len(x))
    fooled = verdict(model, x_adv, y, batch_size=len(x))
    if is_minimal(attack):
        kept = _outwards(model, x, x_adv, y, fooled)
    else:
        kept = Threat(attack.norm, 0.0).round(x_adv, x)
    levels, original = ((v * 255).round().to(torch.uint8) for v in (kept, x))
    changed = (levels != original).flatten(1).any(1) & started
    of = changed.nonzero()[:, 0]
    if astray and len(of):
        kept[of] = astray_as_far(x[of], kept[of], Noise(derive(seed, "astray"), ids[of]))
        levels = (kept * 255).round().to(torch.uint8)
        fooled = verdict(model, kept, y, batch_size=len(x))
    still = verdict(model, kept[of], y[of], batch_size=len(x)) if len(of) else of
    counts = (
        len(x),
        int(wrong.sum()),
        int((~started).sum()),
        int((started & ~changed).sum()),
        len(of),
        int(fooled[of].sum()),
        int(still.sum()),
    )
    images = levels[of].permute(0, 2, 3, 1).contiguous().cpu().numpy()
    return Copies(images, of.cpu().numpy(), dict(zip(COUNTS, counts, strict=True)))


def astray_as_far(x: Tensor, copies: Tensor, noise: Noise) -> Tensor:
    """Return images (B, C, H, W) at 8 bits, as far from x in L2 as copies, in random directions.

    Gaussian noise of each image's own, so strong that after clipping and rounding its length is the
    nearest to that of the copy.
    """
    wanted = (copies - x).flatten(1).norm(dim=1)
    direction = noise.normal(x.shape[1:]).to(x)
    low, high = torch.zeros_like(wanted), torch.full_like(wanted, 4.0)  # standard deviations
    found, best = x.clone(), wanted.clone()
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tried = _nearest((x + middle.view(-1, 1, 1, 1) * direction).clamp(0, 1))
        length = (tried - x).flatten(1).norm(dim=1)
        nearer = (length - wanted).abs() < best
        found[nearer], best = tried[nearer], torch.where(nearer, (length - wanted).abs(), best)
        low, high = (
            torch.where(length < wanted, middle, low),
            torch.where(length < wanted, high, middle),
        )
    return found


def is_minimal(attack: Attack) -> bool:
    """Tell whether an attack seeks the nearest misclassified point, whatever its distance."""
    return attack.eps is None or (not isinstance(attack.eps, Tensor) and math.isinf(attack.eps))


def _outwards(model: nn.Module, x: Tensor, x_adv: Tensor, y: Tensor, fooled: Tensor) -> Tensor:
    """Return 8-bit images near the line from x through x_adv that fool the model, if there are.

    Of those that did (B,) bool; the others, and those for which no push helps, are rounded to the
    nearest levels.
    """
    found = _nearest(x_adv)
    rows = fooled.nonzero()[:, 0]
    for push in PUSHES:
        if not len(rows):
            break
        tried = _nearest((x[rows] + push * (x_adv[rows] - x[rows])).clamp(0, 1))
        breaks = verdict(model, tried, y[rows], batch_size=len(x))
        found[rows[breaks]] = tried[breaks]
        rows = rows[~breaks]
    return found


def _nearest(x: Tensor) -> Tensor:
    return (x * 255).round() / 255
