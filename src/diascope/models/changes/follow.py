"""The logits of points near others, by what the changes do."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diascope.models.changes.around import Around
from diascope.models.changes.points import Points
from diascope.models.changes.rules import NoRuleError
from diascope.models.changes.steps import Steps
from diascope.models.changes.tape import Tape
from diascope.models.changes.traced import Change, Known
from diascope.models.folding import shallow_copy
from diascope.models.frozen import FrozenModel
from diascope.models.stem import Rest, Stem


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
        self._counting: list[Any] = [
            each for each in modules if callable(getattr(each, "count_passes", None))
        ]

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
        batch; a module with a method `count_passes` is told of how many images went past it.
        """
        if self._steps is None or self._size != x.shape:
            self._steps, self._size = self.steps(x, base)[1], x.shape
        else:
            for module in self._counting:
                module.count_passes(len(x))
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
