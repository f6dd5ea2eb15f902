"""How many images go through a model at once, and work cut into chunks of that many."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from diascope.models.frozen import FrozenModel
from diascope.models.modes import evaluating, unwrapped

MARGIN = 1.25  # kernels' own scratch memory, and what is held beside the activations
CPU_BYTES = 2**28  # of activations at once on a CPU: more is no faster, its caches being small
CPU_ROWS = 8  # but at least as many images, as far as the budget goes

_MOST: ContextVar[int | None] = ContextVar("most", default=None)
_SEEN: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], int]] = WeakKeyDictionary()


def rows_within(net: nn.Module, x: Tensor, memory: int, gradient: bool = True) -> int:
    """Return how many of the images (B, C, H, W) fit through `net` at once, at least 1.

    memory: the budget in bytes for activations. gradient: whether a backward pass to the input
    follows each forward. What one image takes is measured (`row_bytes`) and the budget divided by
    it; on a CPU the answer is no more than keeps it fast, and never more than within `at_most`.
    """
    if len(x) == 0:
        return 1
    most = _MOST.get()
    if most == 1:
        return 1
    each = MARGIN * row_bytes(net, x, gradient=gradient)
    rows = int(memory / each)
    if x.device.type == "cpu":
        rows = min(rows, max(CPU_ROWS, int(CPU_BYTES / each)))
    return max(1, rows if most is None else min(rows, most))


@contextmanager
def at_most(rows: int | None) -> Iterator[None]:
    """Have no more than so many images go through a model at once, whatever the budget; None: as
    the budget says.
    """
    token = _MOST.set(rows)
    try:
        yield
    finally:
        _MOST.reset(token)


def row_bytes(net: nn.Module, x: Tensor, *, gradient: bool = True) -> int:
    """Return the most bytes that tensors take while one image of `x` goes through `net`.

    Parameters and what was there before are not counted, nor what a kernel takes and gives back
    within one call. One forward (and backward) of one image, remembered for the model, the size
    of the image and the arithmetic.
    """
    inner, device = unwrapped(net), x.device.type
    kind = (getattr(net, "precision", None), getattr(net, "exact_pooling", None))
    low = torch.is_autocast_enabled(device)
    key = (tuple(x.shape[1:]), x.dtype, device, gradient, kind, low)
    seen = _SEEN.setdefault(inner, {})
    if key not in seen:
        seen[key] = max(1, _look(net, x[:1], gradient))
    return seen[key]


def _look(net: nn.Module, image: Tensor, gradient: bool) -> int:
    if not isinstance(net, FrozenModel):
        with evaluating(net) as inner:
            return _peak(inner, image, gradient)
    return _peak(net, image, gradient)


def _peak(net: nn.Module, image: Tensor, gradient: bool) -> int:
    image = image.detach().clone()
    with _LiveBytes() as live, torch.set_grad_enabled(gradient):
        logits = net(image.requires_grad_(gradient))
        if gradient and logits.requires_grad:
            torch.autograd.grad(logits.sum(), image)
    return int(live.peak)


class _LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the tensors that operations make, while they live."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: dict[int, weakref.ref[torch.UntypedStorage]] = {}
        self._old: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        for leaf in tree_leaves((args, kwargs)):
            if isinstance(leaf, Tensor) and (key := _key(leaf)) not in self._known:
                self._old.add(key)
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._add(leaf)
        return out

    def _add(self, tensor: Tensor) -> None:
        key = _key(tensor)
        if key in self._known or key in self._old:
            return
        storage = tensor.untyped_storage()
        size = storage.nbytes()

        def gone(_: object) -> None:
            self.now -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.now += size
        self.peak = max(self.peak, self.now)


def _key(tensor: Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


@dataclass(frozen=True)
class Chunk:
    """Some of the pairs of an image and a step, in rising order.

    image, step: which image and which step each of the n rows stands for, (n,) int64 each, on the
    images' device. spans: each image of the chunk, with its rows.
    """

    image: Tensor
    step: Tensor
    spans: tuple[tuple[int, slice], ...]

    def add_to(self, total: Tensor, values: Tensor) -> None:
        """Add the values (n, ...) of the rows to the totals (B, ...) of their images."""
        for image, rows in self.spans:
            total[image] += values[rows].sum(0)


def chunks(
    count: int, steps: int, rows: int, device: torch.device | str = "cpu"
) -> Iterator[Chunk]:
    """Cut `count` images times `steps` into chunks of `rows` pairs, the last one shorter.

    The chunks cut across images and steps: one image of 50 steps fills them as 50 images of one
    step do. Every pair comes once, those of an image in the order of its steps.
    """
    for start in range(0, count * steps, rows):
        stop = min(start + rows, count * steps)
        pair = torch.arange(start, stop, device=device)
        first, last = start // steps, (stop - 1) // steps
        spans = tuple(
            (i, slice(max(i * steps, start) - start, min((i + 1) * steps, stop) - start))
            for i in range(first, last + 1)
        )
        yield Chunk(pair // steps, pair % steps, spans)
