"""What runs behind a model's stem while a place of the maps hears of its neighbours alone.

A patch of the stem's maps changes a patch of the maps that such modules make of them, and a crop
around it is enough to compute that patch: of ResNet-18 at 224, half of a forward pass goes into
the stem and the two layers behind it, mostly for nothing where a patch of 50 pixels is covered.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from diascope.models.folding import replace_module, shallow_copy
from diascope.models.frozen import FrozenModel
from diascope.models.stem import Given, Stem, heard

_BLOCK = 8  # pixels along a side of the patch by which it is seen how far a module reaches


@dataclass(frozen=True)
class Reach:
    """Along one axis, of which pixels of the maps that it takes in those of a module's hear.

    taken, side: the pixels of the ones and of the others. stride: of the ones to one of the others.
    before, after: a pixel hears of what lies under it, and under so many of its neighbours to
    either side.
    """

    taken: int
    side: int
    stride: int
    before: int
    after: int

    @property
    def pointwise(self) -> bool:
        """Whether a pixel hears of itself alone."""
        return (self.stride, self.before, self.after) == (1, 0, 0)


@dataclass(frozen=True)
class Stage:
    """A module behind the stem, and what goes pixel by pixel between it and the one before.

    names: of the modules, in the stem's body. run: these modules, in the model's arithmetic. down,
    across: how far they reach.
    """

    names: tuple[str, ...]
    run: FrozenModel
    down: Reach
    across: Reach

    @torch.no_grad()
    def maps(self, maps: Tensor) -> Tensor:
        """Return the maps (B, d, h', w') it makes of maps (B, c, h, w), or of crops of them, which
        are overwritten.
        """
        return self.run.run(maps)


class Remainder:
    """What runs behind some stages of a model."""

    def __init__(self, stem: Stem, stages: Sequence[Stage]) -> None:
        net, body = stem.net, shallow_copy(stem.body)
        assert net.stem is not None
        self._nothing, self._given = stem.nothing, Given(low=False)
        replace_module(body, net.stem, self._given)
        for stage in stages:
            for name in stage.names:
                replace_module(body, name, nn.Identity())
        self._run = FrozenModel(net.original, body, net.precision, net.outputs)

    @torch.no_grad()
    def logits(self, maps: Tensor) -> Tensor:
        """Return the logits (B, K) of the last stage's maps, which are overwritten."""
        self._given.maps = maps
        try:
            seen = self._nothing.expand(len(maps), -1, -1, -1)
            return self._run(seen)  # type: ignore[no-any-return]
        finally:
            self._given.maps = None


@torch.no_grad()
def stages_behind(stem: Stem, maps: Tensor) -> Iterator[Stage]:
    """Yield the modules that run one behind another from the stem on, as far as each is local.

    maps: the stem's maps (1, c, h, w) of an image, left as they are. How far a module reaches is
    seen by a patch of NaN. Costs a pass of one image, and each module's own work once more. That a
    module does the same everywhere, and that the model goes by nothing else, is not seen here.
    """
    calls, modules = _called(stem, maps.clone()), dict(stem.body.named_modules())
    names = list[str]()
    for call in _in_a_row(calls, modules, str(stem.net.stem)):
        module, taken = modules[call.name], call.took[0]
        if taken.ndim != 4 or any(heard(each) for each in module.modules()):
            return
        run, patched = FrozenModel(stem.net.original, module, stem.net.precision), taken.clone()
        top, left = (side // 2 // _BLOCK * _BLOCK for side in taken.shape[2:])
        patched[:, :, top : top + _BLOCK, left : left + _BLOCK] = torch.nan
        made = run.run(patched)
        if made.ndim != 4:
            return
        gone = made.isnan().any(1).any(0)
        down = _reach(gone.any(1), taken.shape[2], top)
        across = _reach(gone.any(0), taken.shape[3], left)
        if down is None or across is None:
            return
        names.append(call.name)
        if max(down.stride, across.stride) > 1 or any(
            (down.before, down.after, across.before, across.after)
        ):
            chain = nn.Sequential(*(modules[name] for name in names))
            run = FrozenModel(stem.net.original, chain, stem.net.precision)
            yield Stage(tuple(names), run, down, across)
            names = []


def _reach(gone: Tensor, taken: int, top: int) -> Reach | None:
    """Return the reach along an axis of `taken` pixels, NaN from `top` on, if there is one.

    gone: which of the pixels made are NaN.
    """
    side, reached = len(gone), gone.nonzero().flatten().tolist()
    stride = round(taken / side)
    if stride < 1 or _BLOCK % stride or side != -(-taken // stride):
        return None
    if not reached or reached[0] == 0 or reached[-1] == side - 1:
        return None
    first, last = top // stride, (top + _BLOCK) // stride - 1
    before, after = reached[-1] - last, first - reached[0]
    return Reach(taken, side, stride, before, after) if min(before, after) >= 0 else None


@dataclass
class _Call:
    """A run of a module: what it took in, and what it gave."""

    name: str
    took: tuple[Any, ...]
    gave: Any = None


def _called(stem: Stem, maps: Tensor) -> list[_Call]:
    """Return the runs of all modules in the order in which they began, from the stem on."""
    calls: list[_Call] = []

    def began(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.append(_Call(name, (*args, *kwargs)))

        return hook

    def ended(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            next(call for call in reversed(calls) if call.name == name).gave = output

        return hook

    handles = []
    for name, module in stem.body.named_modules():
        handles.append(module.register_forward_pre_hook(began(name), with_kwargs=True))
        handles.append(module.register_forward_hook(ended(name)))
    try:
        stem.rest(maps)
    finally:
        for handle in handles:
            handle.remove()
    start = next(n for n, call in enumerate(calls) if call.name == stem.net.stem)
    return calls[start:]


def _in_a_row(calls: list[_Call], modules: dict[str, nn.Module], stem: str) -> Iterator[_Call]:
    """Yield the runs each of which took in what the one before it gave, and that alone; of an
    `nn.Sequential` those in it.
    """
    at, within, names = calls[0].gave, stem, [call.name for call in calls]
    for call in calls[1:]:
        if call.name.startswith(f"{within}."):
            continue
        if len(call.took) != 1 or call.took[0] is not at or names.count(call.name) > 1:
            return
        if type(modules[call.name]) is not nn.Sequential:
            yield call
            at, within = call.gave, call.name
