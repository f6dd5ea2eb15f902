"""The last feature map of a running model: which layer gives it, and in which layout."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from diascope.errors import UserError, nearest
from diascope.models.dense import DenseConv2d
from diascope.models.features import Layout
from diascope.models.frozen import FrozenModel
from diascope.models.modes import unwrapped

SMALLEST = 2  # a map has at least 2x2 places

_FOUND: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], Layer]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Places:
    """How an output lies over the image: its layout, and the height and width of its grid."""

    layout: Layout
    height: int
    width: int

    def as_map(self, out: Tensor) -> Tensor:
        """Return the output as (B, C', h, w), without tokens that stand for no place."""
        if self.layout == "NCHW":
            return out
        if self.layout == "NHWC":
            return out.permute(0, 3, 1, 2)
        tokens = out[:, out.shape[1] - self.height * self.width :]
        return tokens.transpose(1, 2).reshape(len(out), -1, self.height, self.width)

    def placeless(self, out: Tensor) -> Tensor | None:
        """Return the tokens that stand for no place, (B, n, C'), None where there are none."""
        extra = out.shape[1] - self.height * self.width
        return out[:, :extra] if self.layout == "NLC" and extra else None


@dataclass(frozen=True)
class Layer:
    """One output of a module: its name, which of its calls in one forward, and its places."""

    name: str
    call: int
    places: Places


def running(net: nn.Module) -> nn.Module:
    """Return the module that runs when `net` is called: a frozen model's body."""
    body = net.body if isinstance(net, FrozenModel) else unwrapped(net)
    if not isinstance(body, nn.Module) or hasattr(body, "_orig_mod"):
        raise UserError("a compiled model shows no layers; explain the model itself")
    return body


def places_of(module: nn.Module, out: Tensor, image: Tensor) -> Places | None:
    """Return how a module's output lies over images (B, C, H, W), None where it is no map.

    Outputs (B, ., ., .) are maps with the channels first or last, whichever grid has the shape
    of the image; of a convolution always first. Outputs (B, N, C') are tokens, after none or one
    that stands for no place, or as many as the model says. A map has at least 2x2 places.
    """
    size = (image.shape[2], image.shape[3])
    if out.ndim == 4:
        first, last = out.shape[2:], out.shape[1:3]
        plain = isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.BatchNorm2d)
        if plain or _misfit(first, size) <= min(_misfit(last, size), _MOST):
            return Places("NCHW", *first) if min(first) >= SMALLEST else None
        return Places("NHWC", *last) if _misfit(last, size) <= _MOST else None
    if out.ndim == 3:
        for extra in (0, 1, 2, 4, 5, 8):
            grid = _grid(out.shape[1] - extra, size)
            if grid is not None:
                return Places("NLC", *grid)
    return None


_MOST = 1.5  # places by which the sides of a grid may be off the image's, for they are rounded


def _misfit(grid: torch.Size | tuple[int, int], size: tuple[int, int]) -> float:
    """Return by how many places the grid is not of the image's shape."""
    if min(grid) < SMALLEST or grid[0] > size[0] or grid[1] > size[1]:
        return float("inf")
    return abs(grid[0] * size[1] - grid[1] * size[0]) / max(size)


def _grid(count: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Return the grid of `count` places that has the image's shape."""
    if count < SMALLEST * SMALLEST:
        return None
    height = round((count * size[0] / size[1]) ** 0.5)
    if height < 1 or count % height:
        return None
    grid = (height, count // height)
    return grid if _misfit(grid, size) < 1 else None


def find_layer(net: nn.Module, x: Tensor, name: str | None = None) -> Layer:
    """Return the layer of images (B, C, H, W) whose map Grad-CAM takes.

    Without a name: the last output that is a map of at least 2x2 places; of a size in which
    something learnt works, so no pooled copy; which all that reaches the logits goes through; and
    of whose places the logits take note (a vision transformer with a class token ignores the
    places of its last block). With a name: that module, at its last call whose output is a map;
    names are those of `named_modules`, a backbone's own may leave "backbone." out. One forward of
    one image and a backward as far as the layer, remembered for the model and the size. Raises
    `UserError` for an unknown name, one whose output is no map, and a model without a map.
    """
    key = (name, tuple(x.shape[1:]), getattr(net, "precision", None))
    found = _FOUND.setdefault(unwrapped(net), {})
    modules = dict(running(net).named_modules())
    if key not in found or found[key].name not in modules:
        found[key] = _named(net, x[:1], name) if name else _last(net, x[:1])
    return found[key]


def _named(net: nn.Module, image: Tensor, name: str) -> Layer:
    modules = {n: m for n, m in running(net).named_modules() if n}
    full = name if name in modules else f"backbone.{name}"
    if full not in modules:
        short = (n.removeprefix("backbone.") for n in modules)
        known = [n for n in short if n.count(".") <= name.count(".")]
        raise UserError(f"layer '{name}': this model has no such layer; {nearest(name, known)}")
    with torch.no_grad():
        seen = _watch(net, image, {full: modules[full]})[1]
    if not seen:
        raise UserError(f"layer '{name}': its output is no map of the image; name another")
    return seen[-1].layer


def _last(net: nn.Module, image: Tensor) -> Layer:
    modules = {n: m for n, m in running(net).named_modules() if n}
    with torch.enable_grad():
        image = image.detach().clone().requires_grad_(True)
        logits, seen = _watch(net, image, modules)
        sizes = {_size(each.layer) for each in seen if each.learnt}
        seen = [s for s in reversed(seen) if _size(s.layer) in sizes]
        edges = [(s.layer, s.edge) for s in seen if s.edge is not None]
        if not edges or not logits.requires_grad:
            raise UserError("this model has no map of at least 2x2 places; name a layer")
        start = get_gradient_edge(image).node
        first: Layer | None = None
        weights = torch.linspace(1, 2, logits.shape[1], device=logits.device)
        score = (logits.float() * weights).sum()
        for layer, edge in edges:
            if _is_cut(logits, edge, start):
                if _is_noted(score, layer, edge):
                    return layer
                first = first or layer
    return first or edges[0][0]


def _size(layer: Layer) -> tuple[int, int]:
    return layer.places.height, layer.places.width


@dataclass(frozen=True)
class _Seen:
    layer: Layer
    learnt: bool
    edge: GradientEdge | None


def _watch(
    net: nn.Module, image: Tensor, modules: dict[str, nn.Module]
) -> tuple[Tensor, list[_Seen]]:
    """Run one image and return the logits and every output of the modules that is a map."""
    seen: list[_Seen] = []
    calls: dict[str, int] = {}

    def note(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, out: Any) -> None:
            call = calls[name] = calls.get(name, -1) + 1
            if not isinstance(out, Tensor) or len(out) != 1:
                return
            places = places_of(module, out, image)
            if places is not None:
                learnt = any(p is not None for p in module._parameters.values())
                edge = get_gradient_edge(out) if out.requires_grad else None
                seen.append(_Seen(Layer(name, call, places), learnt, edge))

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in modules.items()]
    try:
        return net(image), seen
    finally:
        for handle in handles:
            handle.remove()


def _is_cut(logits: Tensor, edge: GradientEdge, start: Any) -> bool:
    """Tell whether every path from the image to the logits goes through `edge`."""
    seen, stack = {edge.node}, [get_gradient_edge(logits).node]
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        if node is start:
            return False
        seen.add(node)
        stack += [parent for parent, _ in node.next_functions if parent is not None]
    return True


def _is_noted(score: Tensor, layer: Layer, edge: GradientEdge) -> bool:
    """Tell whether the score changes with the map's places."""
    (gradient,) = torch.autograd.grad(score, edge, retain_graph=True, materialize_grads=True)
    return bool(layer.places.as_map(gradient).count_nonzero() > 0)


def folded_shift(net: nn.Module, layer: Layer) -> Tensor | None:
    """Return what a batch-norm folded into the layer adds to it beside its scale, (C', 1, 1).

    None where the layer is no convolution with a batch-norm in it.
    """
    module = running(net).get_submodule(layer.name)
    conv = module.conv if isinstance(module, DenseConv2d) else module
    shift = getattr(conv, "folded_shift", None) if isinstance(conv, nn.Conv2d) else None
    return None if shift is None else shift.view(-1, 1, 1)


@contextmanager
def branching(net: nn.Module, layer: Layer) -> Iterator[list[Tensor]]:
    """Let gradients begin at `layer`: what runs before it records nothing.

    Gives a list to which every call of `net` inside adds the layer's output, a leaf that requires
    gradients, in its own layout.
    """
    outputs: list[Tensor] = []
    call = 0

    def before(module: nn.Module, inputs: Any) -> None:
        nonlocal call
        call = 0
        torch.set_grad_enabled(False)

    def hook(module: nn.Module, inputs: Any, out: Tensor) -> Tensor | None:
        nonlocal call
        call += 1
        if call != layer.call + 1:
            return None
        outputs.append(out.detach().requires_grad_(True))
        torch.set_grad_enabled(True)
        return outputs[-1].clone()  # what follows may work in place

    body = running(net)
    handles = [
        body.register_forward_pre_hook(before),
        body.get_submodule(layer.name).register_forward_hook(hook),
    ]
    try:
        with torch.enable_grad():  # gives back what was set
            yield outputs
    finally:
        for handle in handles:
            handle.remove()
