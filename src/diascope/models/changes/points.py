"""Points near others, and their logits by what the changes do."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from diascope.hardware import out_of_memory
from diascope.models.changes.around import Around, Patch, around_of, squares
from diascope.models.changes.rules import NoRuleError
from diascope.models.changes.steps import Steps
from diascope.models.changes.tape import Tape
from diascope.models.changes.traced import Change, Known
from diascope.models.folding import shallow_copy
from diascope.models.frozen import FrozenModel, frozen
from diascope.models.stem import WORTH, Rest, Stem, heard, near, stem_apart

TRIAL = 8  # passes of each image at most, beside some thirty of one
MOST_MEMORY = 1 << 30  # bytes of maps that are kept
_AMISS = 0.05  # share of a change of the logits, less their mean, that may be amiss in the trial


class Points:
    """Points (B, C, H, W), their logits (B, K) in float32, and what is kept of their maps.

    drift: in a net that begins with a pooling, by how much the pooled maps of where the images are
    by now are others, (B, h, w, c) in bfloat16.
    """

    def __init__(self, x: Tensor, logits: Tensor, tape: Tape, drift: Tensor | None = None) -> None:
        self.x, self.logits, self.tape, self.drift = x, logits, tape, drift
        self._asked: Tensor | None = None  # the drift of what was last asked about
        if tape.pooled and drift is None:
            pooled = tape.entries[0][0].permute(0, 2, 3, 1)
            self.drift = torch.zeros_like(pooled, dtype=torch.bfloat16)

    def take(self, rows: Tensor) -> Points:
        """Return some of them."""
        drift = None if self.drift is None else self.drift[rows]
        return Points(self.x[rows], self.logits[rows], self.tape.take(rows), drift)

    def put(self, rows: Tensor, new: Points) -> None:
        """Write others in the places `rows`, to which the images have moved."""
        self.x[rows], self.logits[rows] = new.x, new.logits
        self.tape.put(rows, new.tape)
        self.returned(rows)

    def moved(self, rows: Tensor) -> None:
        """Note that some images have moved to where they were last asked about."""
        if self.drift is not None:
            assert self._asked is not None
            self.drift[rows] = self._asked[rows]

    def returned(self, rows: Tensor) -> None:
        """Note that some images are at the points themselves."""
        if self.drift is not None:
            self.drift[rows] = 0

    def drifted(self, patch: Patch) -> Tensor:
        """Return the drift of images of which, since they have moved, a patch is another."""
        assert self.drift is not None
        drift = self.drift.clone()
        pooled = self.tape.entries[0][0].permute(0, 2, 3, 1)
        drift[patch.where] = (patch.values - pooled[patch.where]).bfloat16()
        return drift

    def asked(self, drift: Tensor) -> None:
        """Note the drift of what is asked about."""
        self._asked = drift


class Changes:
    """The logits of points near others, by what the changes do; see `changes_of`.

    stem: of the net, in float32. low: the net frozen in bfloat16. around: what computes squares of
    the pooled maps with which it begins, if it does and that was tried.
    """

    def __init__(self, stem: Stem, low: FrozenModel) -> None:
        assert isinstance(low.body, nn.Module)
        self.stem = stem
        self.rest = Rest(low, shallow_copy(low.body), stem.nothing, low=False)
        self.around: Around | None = None
        self._steps: Steps | None = None
        self._size = torch.Size()  # of the images whose changes went through the steps
        modules = stem.net.original.modules()
        self._counting: list[Any] = [each for each in modules if hasattr(each, "passed")]

    @torch.no_grad()
    def known(self, x: Tensor) -> Points:
        """Return what is known at points x (B, C, H, W), from one pass in float32."""
        tape = Tape(len(x))
        logits = self.stem.rest(Known.of(self.stem.maps(x), tape))
        return Points(x.clone(), logits.as_subclass(Tensor), tape)

    @torch.no_grad()
    def __call__(self, x: Tensor, base: Points, where: Tensor | None = None) -> Tensor:
        """Return the logits (B, K), float32, of points x (B, C, H, W) near others.

        where: (B, n), the places of a square in images (H, W, C) laid flat, where alone they are
        others than where the images have moved to. The net's own code is run once for each size of
        batch; a module with a method `passed` is told of how many images went past it.
        """
        if self._steps is None or self._size != x.shape:
            self._steps, self._size = self.steps(x, base)[1], x.shape
        else:
            for module in self._counting:
                module.passed(len(x))
        first = self._first(x, base, where, self._steps)
        return base.logits + self._steps.again(base.tape, first)

    def _first(self, x: Tensor, base: Points, where: Tensor | None, steps: Steps) -> Tensor:
        """Return the change that the steps begin with."""
        if steps.before is None:
            return self.stem.change(x - base.x).bfloat16()
        patch = None
        if self.around is not None and where is not None:
            patch = self.around.pooled(x, where)
        if patch is None:
            drift = steps.before.again(base.tape, self.stem.maps(x)).permute(0, 2, 3, 1)
        else:
            drift = base.drifted(patch)
        base.asked(drift)
        return drift.clone().permute(0, 3, 1, 2)

    @torch.no_grad()
    def steps(self, x: Tensor, base: Points) -> tuple[Tensor, Steps]:
        """Return what the net's own code makes of the changes (B, K), and the steps of it."""
        whole = base.tape.pooled
        maps = self.stem.maps(x) if whole else self.stem.change(x - base.x).bfloat16()
        change = self.rest(Change.of(maps, Steps(base.tape, maps), whole=whole))
        if not isinstance(change, Change) or change.steps.met != len(base.tape.entries):
            raise NoRuleError("other operations than when the maps were kept")
        change.steps.end(change.slot)
        return change.as_subclass(Tensor), change.steps


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
