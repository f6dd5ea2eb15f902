"""Points near others, and their logits by what the changes do."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diascope.hardware import out_of_memory
from diascope.models.changes.rules import NoRuleError
from diascope.models.changes.steps import Steps
from diascope.models.changes.tape import Tape
from diascope.models.changes.traced import Change, Known
from diascope.models.folding import shallow_copy
from diascope.models.frozen import FrozenModel, frozen
from diascope.models.stem import WORTH, Rest, Stem, stem_apart

MOST_MEMORY = 2 << 30  # bytes of maps that are kept
_AMISS = 0.05  # share of a change of the logits, less their mean, that may be amiss in the trial


class Points:
    """Points (B, C, H, W), their logits (B, K) in float32, and what is kept of their maps."""

    def __init__(self, x: Tensor, logits: Tensor, tape: Tape) -> None:
        self.x, self.logits, self.tape = x, logits, tape

    def take(self, rows: Tensor) -> Points:
        """Return some of them."""
        return Points(self.x[rows], self.logits[rows], self.tape.take(rows))

    def put(self, rows: Tensor, new: Points) -> None:
        """Write others in the places `rows`."""
        self.x[rows], self.logits[rows] = new.x, new.logits
        self.tape.put(rows, new.tape)


class Changes:
    """The logits of points near others, by what the changes do; see `changes_of`.

    stem: of the net, in float32. low: the net frozen in bfloat16.
    """

    def __init__(self, stem: Stem, low: FrozenModel) -> None:
        assert isinstance(low.body, nn.Module)
        self.stem = stem
        self.rest = Rest(low, shallow_copy(low.body), stem.nothing, low=False)
        self._kind: tuple[object, ...] = ()  # of the maps that went through the steps
        self._steps: Steps

    @torch.no_grad()
    def known(self, x: Tensor) -> Points:
        """Return what is known at points x (B, C, H, W), from one pass in float32."""
        tape = Tape()
        logits = self.stem.rest(Known.of(self.stem.maps(x), tape))
        return Points(x.clone(), logits.as_subclass(Tensor), tape)

    @torch.no_grad()
    def __call__(self, x: Tensor, near: Points) -> Tensor:
        """Return the logits (B, K), float32, of points x (B, C, H, W) near others."""
        pooled = near.tape.pooled
        maps = self.stem.maps(x) if pooled else self.stem.change(x - near.x).bfloat16()
        kind = (maps.shape, maps.stride())
        if kind == self._kind:
            return near.logits + self._steps.again(near.tape, maps)
        steps = Steps(near.tape, maps)
        change = self.rest(Change.of(maps, steps, whole=pooled))
        if not isinstance(change, Change) or steps.met != len(near.tape.entries):
            raise NoRuleError("other operations than when the maps were kept")
        steps.end(change.slot)
        self._kind, self._steps = kind, steps
        return near.logits + change.as_subclass(Tensor)


def changes_of(net: FrozenModel, x: Tensor, passes: float, *, gain: bool = True) -> Changes | None:
    """Return how the changes go through a net frozen in float32, near images like x (B, C, H, W).

    passes: the work to come, in passes of one image. None where that is too little, where
    `stem_apart` gives none, where the net does what changes cannot be followed through or what a
    trial shows to be amiss, and where 2 GiB do not hold the maps of all the images. gain: nor where
    most maps go through other functions than rectifiers, which cost more than bfloat16 gains.
    """
    if passes < WORTH or not len(x) or net.precision != "float32":
        return None
    stem = stem_apart(net, x, passes)
    if stem is None:
        return None
    with frozen(net, x, precision="bf16") as low:
        changes = Changes(stem, low)
    try:
        return changes if _fits(changes, net, x, gain) else None
    except Exception as error:  # a net may do anything with what is not quite a tensor
        if out_of_memory(error):
            raise
        return None


@torch.no_grad()
def _fits(changes: Changes, net: FrozenModel, x: Tensor, gain: bool) -> bool:
    """Tell whether patches of all sizes change the logits of an image as they are said to."""
    point, side = changes.known(x[:1]), min(x.shape[2:])
    if point.tape.nbytes * len(x) > MOST_MEMORY:
        return False
    if gain and not point.tape.is_rectified:
        return False
    generator, patches = torch.Generator().manual_seed(0), []
    while side := side // 2:
        patch = torch.zeros_like(x[:1])
        drawn = torch.randn(patch[:, :, :side, :side].shape, generator=generator)
        patch[:, :, side : 2 * side, side : 2 * side] = 0.02 * drawn.sign()
        patches.append(patch)
    moved = x[:1] + torch.cat(patches)
    point = point.take(torch.zeros(len(moved), dtype=torch.int64))
    found, true = changes(moved, point) - point.logits, net(moved) - point.logits
    if not torch.equal(changes(moved, point) - point.logits, found):  # by the steps alone
        return False
    if true.shape[1] > 1:
        found, true = (each - each.mean(1, keepdim=True) for each in (found, true))
    amiss, most = (found - true).norm(dim=1), _AMISS * true.norm(dim=1)
    return bool((amiss <= most + 1e-5 * point.logits.norm(dim=1)).all())
