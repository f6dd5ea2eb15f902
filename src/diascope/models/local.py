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

from diascope.hardware import out_of_memory
from diascope.models.folding import replace_module, shallow_copy
from diascope.models.frozen import FrozenModel
from diascope.models.stem import Rest, Stem, heard, near

_BLOCK = 8  # pixels along a side of the patch by which it is seen how far a module reaches
_CHANGE = 10.0  # standard deviations of the maps by which the patch is changed, up and down


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

    names: of the modules, in the stem's body. body: these modules, in the model's arithmetic. down,
    across: how far they reach.
    """

    names: tuple[str, ...]
    body: FrozenModel
    down: Reach
    across: Reach

    @torch.no_grad()
    def maps(self, maps: Tensor) -> Tensor:
        """Return the maps (B, d, h', w') it makes of maps (B, c, h, w), or of crops of them, which
        are overwritten.
        """
        return self.body.run(maps)


def remainder(stem: Stem, stages: Sequence[Stage]) -> Rest:
    """Return what runs behind some stages of a model, of the last one's maps."""
    body = shallow_copy(stem.body)
    for stage in stages:
        for name in stage.names:
            replace_module(body, name, nn.Identity())
    return Rest(stem.net, body, stem.nothing, low=False)


@torch.no_grad()
def stages_behind(stem: Stem, maps: Tensor) -> Iterator[Stage]:
    """Yield the modules that run one behind another from the stem on, as far as each is local.

    maps: the stem's maps (1, c, h, w) of an image, left as they are. A module is local if it makes
    of maps moved by a pixel of its own the same maps, moved, and if a patch changes a patch.
    Costs a pass of one image, and four of each module. That the model goes by nothing else is not
    seen here.
    """
    calls, modules = _called(stem, maps.clone()), dict(stem.body.named_modules())
    names = list[str]()
    for call in _in_a_row(calls, modules, str(stem.net.stem)):
        module, taken = modules[call.name], call.took[0]
        body = FrozenModel(stem.net.original, module, stem.net.precision)
        try:
            reaches = _reaches(body, taken)
        except Exception as error:  # such as of a module that takes maps of one size alone
            if out_of_memory(error):
                raise
            return
        if reaches is None:
            return
        names.append(call.name)
        if not all(reach.pointwise for reach in reaches):
            chain = nn.Sequential(*(modules[name] for name in names))
            body = FrozenModel(stem.net.original, chain, stem.net.precision)
            yield Stage(tuple(names), body, *reaches)
            names = []


def _reaches(body: FrozenModel, taken: Tensor) -> tuple[Reach, Reach] | None:
    """Return the reach down and across of what takes in maps (1, c, h, w), if it is local."""
    if taken.ndim != 4 or not taken.is_floating_point():
        return None
    top, left = (side // 2 // _BLOCK * _BLOCK for side in taken.shape[2:])
    generator = torch.Generator().manual_seed(0)
    scale = _CHANGE * (taken.float().std() + taken.abs().mean() + 1e-3)
    block = scale * torch.randn(taken[:, :, :_BLOCK, :_BLOCK].shape, generator=generator)
    tried = taken.expand(3, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    place = tried[:, :, top : top + _BLOCK, left : left + _BLOCK]
    place[1:] += torch.cat([block, -block])[:, :, : place.shape[2], : place.shape[3]]
    made = body.run(tried.clone())
    if not isinstance(made, Tensor) or made.ndim != 4:
        return None
    gone = (made[1:] != made[:1]).any(1).any(0)
    down = _reach(gone.any(1), taken.shape[2], top)
    across = _reach(gone.any(0), taken.shape[3], left)
    if down is None or across is None:
        return None
    moved = body.run(tried[:1, :, down.stride :, across.stride :].clone())
    return (down, across) if _moved(made[:1], moved, down, across) else None


def _moved(made: Tensor, moved: Tensor, down: Reach, across: Reach) -> bool:
    """Tell whether maps are those of what is moved by a pixel, but for the edges."""
    found, true = moved, made[:, :, 1:, 1:]
    if found.shape != true.shape:
        return False
    for axis, reach in ((2, down), (3, across)):
        edge = reach.before + 1
        count = true.shape[axis] - edge - reach.after - 1
        if count < 1:
            return False
        found, true = found.narrow(axis, edge, count), true.narrow(axis, edge, count)
    share = 0.02 if made.dtype == torch.bfloat16 else 1e-3
    return near(found.float(), true.float(), share)


def _reach(gone: Tensor, taken: int, top: int) -> Reach | None:
    """Return the reach along an axis of `taken` pixels, changed from `top` on, if there is one.

    gone: which of the pixels made are others than before.
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
    """A run of a module: what it took in, and what it gave; each with its version then."""

    name: str
    took: tuple[Any, ...]
    taken: int = 0
    gave: Any = None
    given: int = 0


def _called(stem: Stem, maps: Tensor) -> list[_Call]:
    """Return the runs of all modules in the order in which they began, from the stem on."""
    calls: list[_Call] = []

    def began(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            took = (*args, *kwargs)
            calls.append(_Call(name, took, _version(took[0] if took else None)))

        return hook

    def ended(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            call = next(call for call in reversed(calls) if call.name == name)
            call.gave, call.given = output, _version(output)

        return hook

    handles = []
    try:
        for name, module in stem.body.named_modules():
            handles.append(module.register_forward_pre_hook(began(name), with_kwargs=True))
            handles.append(module.register_forward_hook(ended(name)))
        stem.rest(maps)
    finally:
        for handle in handles:
            handle.remove()
    start = next(n for n, call in enumerate(calls) if call.name == stem.net.stem)
    return calls[start:]


def _version(value: Any) -> int:
    """Return how often a tensor was written over, as far as that is counted."""
    counted = isinstance(value, Tensor) and not value.is_inference()
    return value._version if counted else 0


def _in_a_row(calls: list[_Call], modules: dict[str, nn.Module], stem: str) -> Iterator[_Call]:
    """Yield the runs each of which took in what the one before it gave, and that alone; of an
    `nn.Sequential` those in it. Where hooks hear of a module the row ends.
    """
    at, within, names = calls[0], stem, [call.name for call in calls]
    for call in calls[1:]:
        if call.name.startswith(f"{within}."):
            continue
        module = modules[call.name]
        same = len(call.took) == 1 and call.took[0] is at.gave and call.taken == at.given
        if not same or names.count(call.name) > 1 or heard(module):
            return
        if type(module) is nn.Sequential:
            continue
        if any(heard(each) for each in module.modules()):
            return
        yield call
        at, within = call, call.name
