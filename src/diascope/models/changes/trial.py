"""Whether changes can be followed through a net, and are worth it: seen on its images."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from diascope.hardware import gains_from_bf16, out_of_memory
from diascope.models.changes.around import Around, around_of, squares
from diascope.models.changes.follow import Changes
from diascope.models.changes.points import Points
from diascope.models.changes.steps import Steps
from diascope.models.frozen import Arithmetic, FrozenModel, frozen
from diascope.models.stem import WORTH, heard, near, stem_apart

TRIAL = 8  # passes of each image at most, beside some thirty of one
MOST_MEMORY = 1 << 30  # bytes of maps that are kept
_AMISS = 0.05  # share of a change of the logits, less their mean, that may be amiss


def changes_if(precision: Arithmetic, net: FrozenModel, x: Tensor, passes: float) -> Changes | None:
    """Return `changes_of`, if the precision that was asked for has them on this hardware."""
    if precision == "float32" or (precision == "auto" and not gains_from_bf16(x.device)):
        return None
    return changes_of(net, x, passes, gain=precision == "auto")


def changes_of(net: FrozenModel, x: Tensor, passes: float, *, gain: bool = True) -> Changes | None:
    """Return how the changes go through a net frozen in float32, near images x (B, C, H, W).

    passes: the work to come, in passes of one image. None where that is too little, where
    `stem_apart` gives none (off the CPU, too), where hooks may hear of what goes through the net,
    where it does what changes cannot be followed through or what a trial shows to be amiss, and
    where a GiB does not hold what is kept of all the images (there are two of it at times). gain:
    nor where most maps go through other functions than rectifiers, which cost more than bfloat16
    gains.
    """
    if passes < WORTH + TRIAL * len(x) or not len(x) or net.precision != "float32":
        return None
    stem = stem_apart(net, x, passes)
    if stem is None or any(map(heard, net.original.modules())):
        return None
    with frozen(net, x, precision="bf16") as low:
        changes = Changes(stem, low)
    try:
        return changes if _tried(changes, net, x, gain) else None
    except Exception as error:  # a net may do anything with what is not quite a tensor
        if out_of_memory(error):
            raise
        return None


@torch.no_grad()
def _tried(changes: Changes, net: FrozenModel, x: Tensor, gain: bool) -> bool:
    """Tell whether squares change the logits of images as they are said to, and if so whether the
    changes are to be computed around them.

    Tried with squares of all sizes in an image, and with one in each.
    """
    point = changes.known(x[:1])
    if point.tape.nbytes * len(x) > MOST_MEMORY or (gain and not point.tape.is_rectified):
        return False
    least = min(x.shape[2:])
    sides = [least >> n for n in range(1, 1 + int(math.log2(least)))]
    moved, base = _moved(point, [(side, side, side) for side in sides])
    code, steps = changes.steps(moved, base)
    found = changes(moved, base)
    if not torch.equal(found, base.logits + code) or not _alike(found, net(moved), base):
        return False
    changes.around = _around(changes, steps, point)
    whole = changes.known(x)
    moved = whole.x + 0.02 * _signs(whole.x.shape)
    rows = torch.arange(0, len(x), 2)
    alike = _alike(changes(moved, whole), true := net(moved), whole)
    return alike and _alike(changes(moved[rows], whole.take(rows)), true[rows], whole.take(rows))


def _alike(found: Tensor, true: Tensor, base: Points) -> bool:
    """Tell whether logits (B, K) are near to the true ones, beside how these change.

    What shifts all classes alike, and images whose logits are not finite, are left out.
    """
    found, true = found - base.logits, true - base.logits
    if true.shape[1] > 1:
        found, true = (each - each.mean(1, keepdim=True) for each in (found, true))
    amiss, most = (found - true).norm(dim=1), _AMISS * true.norm(dim=1)
    near_enough = amiss <= most + 1e-5 * base.logits.norm(dim=1)
    return bool((near_enough | ~true.isfinite().all(1)).all())


def _around(changes: Changes, steps: Steps, point: Points) -> Around | None:
    """Return what computes squares of the stem's pooled maps, if it gives those of a point."""
    before = steps.before
    around = None if before is None else around_of(changes.stem, before.steps)
    side, (high, wide) = 2, point.x.shape[2:]
    if before is None or around is None or min(high, wide) < side:
        return None
    places = [(0, 0), (high - side, wide - side), (high // 2, wide // 3), (high // 3, 0)]
    moved, point = _moved(point, [(*place, side) for place in places])
    patch = around.pooled(moved, squares(torch.tensor(places), side, moved.shape))
    if patch is None:
        return None
    drift = before.again(point.tape, changes.stem.maps(moved)).permute(0, 2, 3, 1)
    return around if near(point.drifted(patch).float(), drift.float(), _AMISS) else None


def _moved(point: Points, places: list[tuple[int, int, int]]) -> tuple[Tensor, Points]:
    """Return images (n, C, H, W) of which a square, of such a top, left and side, is another, and
    the point as often.
    """
    moved = point.x.repeat(len(places), 1, 1, 1)
    for image, (top, left, side) in zip(moved, places, strict=True):
        square = image[:, top : top + side, left : left + side]
        square += 0.02 * _signs(square.shape)
    return moved, point.take(torch.zeros(len(moved), dtype=torch.int64))


def _signs(shape: torch.Size) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).sign()
