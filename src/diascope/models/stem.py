"""A frozen model in two parts: the stem, which takes in the image, and the rest.

A stem, the first convolution with the normalisation before it, is affine in the image. So its maps
on the way between two images lie on the way between theirs, and gradients to its maps may be
summed before they are taken to the pixels, once. Where few channels come in and the maps are large,
CPUs are poor at just this layer: of a gradient of ResNet-18 at 224 in bfloat16, whose stem runs in
float32 (`diascope.models.pooled`), it takes 13%.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from diascope.models.folding import replace_module
from diascope.models.frozen import FrozenModel
from diascope.models.input_gradient import input_gradient_of
from diascope.models.pooled import ExactConv2d
from diascope.models.recast import recast
from diascope.models.split import SplitConv2d
from diascope.models.strided import StridedConv2d

_KINDS = (nn.Conv2d, ExactConv2d, SplitConv2d, StridedConv2d)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")

_APART: WeakKeyDictionary[nn.Module, dict[tuple[Any, ...], bool]] = WeakKeyDictionary()


class Stem:
    """The stem of a frozen model, in float32, and the rest; see `stem_apart`.

    net: the model, whose first convolution is called `name` in its body. conv: that convolution, of
    one term, in float32. low: whether the rest takes in its maps in bfloat16. nothing: an image
    (1, C, H, W) for the rest to be called with, which is not looked at.
    """

    def __init__(self, net: FrozenModel, name: str, nothing: Tensor) -> None:
        self.net, self.name, self.nothing = net, name, nothing
        conv = net.modules_of_body()[name]
        self.low = net.precision == "bf16" and not isinstance(conv, ExactConv2d)
        self.conv = _in_float32(conv)
        self._gradient = input_gradient_of(self.conv, self.conv.weight.detach())

    @torch.no_grad()
    def maps(self, x: Tensor) -> Tensor:
        """Return the stem's maps (B, c, h, w), float32, of images (B, C, H, W)."""
        return self.conv(self.before(x))  # type: ignore[no-any-return]

    def rest(self, maps: Tensor) -> Tensor:
        """Return the logits (B, K) of the stem's maps (B, c, h, w), which are overwritten."""
        given = _Given(maps, self.low)
        with _in_place(self.net, self.name, given):
            return self.net(self.nothing)  # type: ignore[no-any-return]

    def to_images(self, gradient: Tensor, x: Tensor) -> Tensor:
        """Return the gradient to images like `x` (B, C, H, W) of that to their maps."""
        with torch.enable_grad():
            x = torch.zeros_like(x).requires_grad_(True)
            before = self.before(x)
        seed = self._gradient(gradient, before.shape[2:])
        (found,) = torch.autograd.grad(before, x, seed)
        return found

    def before(self, x: Tensor) -> Tensor:
        """Return what the first convolution takes in of images (B, C, H, W)."""
        with _in_place(self.net, self.name, _Stop()):
            try:
                self.net(x)
            except _Stopped as stopped:
                return stopped.taken
        raise RuntimeError(f"{self.name} did not run")


def stem_apart(net: nn.Module, x: Tensor) -> Stem | None:
    """Return the stem of a model for images like `x` (B, C, H, W), or None if it has none apart.

    None in float64 and off the CPU, where nothing was measured; for a model that is not `frozen`,
    or is run as it is; and where a trial, once for each model, shows that the stem is not affine
    or that the rest looks at more of the image than the stem's maps.
    """
    if not isinstance(net, FrozenModel) or x.device.type != "cpu" or x.dtype != torch.float32:
        return None
    name: str | None = net.__dict__["stem"]
    conv = None if name is None else net.modules_of_body().get(name)
    if name is None or conv is None or type(conv) not in _KINDS or isinstance(conv.padding, str):
        return None
    hooked = any(getattr(conv, kind, None) for kind in _HOOKS)  # a hook would not hear of the rest
    if hooked or conv.weight.dtype == torch.float64:
        return None
    stem = Stem(net, name, torch.zeros_like(x[:1]))
    known = _APART.setdefault(net.original, {})
    key = (name, net.precision, type(conv), tuple(x.shape[1:]))
    if key not in known:
        known[key] = _is_apart(stem)
    return stem if known[key] else None


@torch.no_grad()
def _is_apart(stem: Stem) -> bool:
    generator = torch.Generator().manual_seed(0)
    pair = torch.rand(2, *stem.nothing.shape[1:], generator=generator)
    between = torch.lerp(pair[:1], pair[1:], 0.25)
    try:
        first, second = torch.split(stem.before(pair), 1)
        gap = stem.before(between) - torch.lerp(first, second, 0.25)
        whole, told = stem.net(pair), stem.rest(stem.maps(pair))
        other = Stem(stem.net, stem.name, pair[:1])
        same = torch.equal(other.rest(stem.maps(pair)), told)
    except Exception:  # the user's own module may refuse in any way
        return False
    scale = whole.abs().amax().clamp_min(1e-6)
    near = (told - whole).abs().amax() <= (0.05 if stem.net.precision == "bf16" else 1e-3) * scale
    return same and bool(near) and bool(gap.abs().amax() <= 1e-5 * first.abs().amax())


def _in_float32(conv: nn.Conv2d) -> nn.Conv2d:
    """Return the convolution of the image itself, plainly, on the same values."""
    new, weight = recast(conv, nn.Conv2d), conv.weight.detach().float()
    if isinstance(conv, SplitConv2d):
        weight = weight[:, : weight.shape[1] // 2]
        new.in_channels = weight.shape[1]
    new._parameters["weight"] = nn.Parameter(weight, requires_grad=False)
    if conv.bias is not None:
        new._parameters["bias"] = nn.Parameter(conv.bias.detach().float(), requires_grad=False)
    return new


@contextmanager
def _in_place(net: FrozenModel, name: str, module: nn.Module) -> Iterator[None]:
    body = net.body
    assert isinstance(body, nn.Module)
    before = body.get_submodule(name)
    replace_module(body, name, module)
    try:
        yield
    finally:
        replace_module(body, name, before)


class _Stopped(Exception):
    """Where the first convolution would have run."""

    def __init__(self, taken: Tensor) -> None:
        super().__init__()
        self.taken = taken


class _Stop(nn.Module):
    """Gives what it is called with to whoever called the model."""

    def forward(self, x: Tensor) -> NoReturn:
        raise _Stopped(x)


class _Given(nn.Module):
    """Gives the same maps whatever it is called with."""

    def __init__(self, maps: Tensor, low: bool) -> None:
        super().__init__()
        self.given, self.low = maps, low

    def forward(self, _: Tensor) -> Tensor:
        maps: Tensor = _Fresh.apply(self.given)
        return maps.bfloat16() if self.low else maps


class _Fresh(torch.autograd.Function):
    """The same values, which may be written over although the gradient to them is wanted."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        return maps.data  # not a view in autograd's eyes

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> Tensor:
        return seed
