"""A frozen model in two parts: the stem, which takes in the image, and the rest.

A stem is the first convolution, with a scaling of the channels before it, so it is affine in the
image: its maps on the way between two images lie on the way between theirs, gradients to its maps
may be summed before they are taken to the pixels, once, and a patch of the image changes a patch
of the maps. Where few channels come in and the maps are large, CPUs are poor at just this layer: it
takes 13% of a gradient of ResNet-18 at 224 in bfloat16, the stem in float32
(`diascope.models.pooled`), and 16% of a forward (two threads, AVX-512 BF16, 2026-11-22).
"""

from __future__ import annotations

import math
from typing import Any, NoReturn

import torch
import torch.nn.modules.module as torch_module
from torch import Tensor, nn

from diascope.hardware import out_of_memory
from diascope.models.folding import replace_module, shallow_copy
from diascope.models.frozen import FrozenModel
from diascope.models.input_gradient import input_gradient_of
from diascope.models.pooled import ExactConv2d
from diascope.models.recast import recast
from diascope.models.split import SplitConv2d
from diascope.models.strided import StridedConv2d

TRIAL = 11  # passes at most, a backward counting two; four of them end at the stem
WORTH = 300  # passes of one image: of 150 the trial costs what is gained, on that machine

_KINDS = (nn.Conv2d, ExactConv2d, SplitConv2d, StridedConv2d)
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class Stem:
    """The stem of a frozen model, in float32, and the rest; see `stem_apart`.

    net: that model. rest: gives the logits of the stem's maps. body: what that runs. conv: the
    first convolution, of one term, in float32; what it takes in is scale * x + shift, (1, C, 1, 1)
    each. low: whether the rest takes in the maps in bfloat16. nothing: an image (1, C, H, W) of
    zeros.
    """

    def __init__(self, net: FrozenModel, scale: Tensor, shift: Tensor, nothing: Tensor) -> None:
        assert net.stem is not None
        assert isinstance(net.body, nn.Module)
        conv = net.body.get_submodule(net.stem)
        assert isinstance(conv, nn.Conv2d)
        self.low = net.precision == "bf16" and not isinstance(conv, ExactConv2d)
        self.conv, self.scale, self.shift = _in_float32(conv), scale, shift
        self._gradient = input_gradient_of(self.conv, self.conv.weight.detach())
        self.nothing, self.net = nothing, net
        self.rest = Rest(net, shallow_copy(net.body), nothing, self.low)
        self.body = self.rest.body

    def taken(self, x: Tensor) -> Tensor:
        """Return what the convolution takes in of images (B, C, H, W), of the same shape."""
        rows = x.detach().permute(0, 2, 3, 1)  # a row of pixels at a time, as `Normalise` does
        batch, height, width, channels = rows.shape
        rows = rows.reshape(batch * height, width * channels)
        scale, shift = (each.flatten().repeat(width) for each in (self.scale, self.shift))
        rows = torch.addcmul(shift, rows, scale)
        return rows.view(batch, height, width, channels).permute(0, 3, 1, 2)

    @torch.no_grad()
    def maps(self, x: Tensor) -> Tensor:
        """Return the stem's maps (B, c, h, w), float32, of images (B, C, H, W)."""
        return self.convolved(self.taken(x), self.conv.padding)

    def change(self, change: Tensor) -> Tensor:
        """Return how the maps (B, c, h, w) change with the images (B, C, H, W)."""
        taken = (change * self.scale).contiguous(memory_format=torch.channels_last)
        return self.convolved(taken, self.conv.padding, biased=False)

    def convolved(self, taken: Tensor, padding: Any = 0, *, biased: bool = True) -> Tensor:
        """Return the maps of what the convolution takes in, with a padding of zeros."""
        conv = self.conv
        bias = conv.bias if biased else None
        with torch.autocast(taken.device.type, enabled=False):
            return nn.functional.conv2d(
                taken, conv.weight, bias, conv.stride, padding, conv.dilation
            )

    def to_images(self, gradient: Tensor) -> Tensor:
        """Return the gradient to the images (B, C, H, W) of that to their maps (B, c, h, w)."""
        with torch.autocast(gradient.device.type, enabled=False):
            return self._gradient(gradient, self.nothing.shape[2:]) * self.scale


class Rest:
    """What runs behind the stem of a frozen model, its maps given.

    body: a copy of what the model runs, whose stem is put out of the way. nothing, low: see `Stem`.
    """

    def __init__(self, net: FrozenModel, body: nn.Module, nothing: Tensor, low: bool) -> None:
        assert net.stem is not None
        self.body, self._nothing, self._given = body, nothing, Given(low)
        replace_module(body, net.stem, self._given)
        self._run = FrozenModel(net.original, body, net.precision, net.outputs)

    def __call__(self, maps: Tensor, seen: Tensor | None = None) -> Tensor:
        """Return the logits (B, K) of the maps (B, c, h, w), which are overwritten.

        seen: the image (1, C, H, W) that the model is called with, to try whether it looks at it.
        """
        seen = self._nothing if seen is None else seen
        self._given.maps = maps
        try:
            return self._run(seen.expand(len(maps), -1, -1, -1))  # type: ignore[no-any-return]
        finally:
            self._given.maps = None


def stem_apart(net: nn.Module, x: Tensor, passes: float = math.inf) -> Stem | None:
    """Return the stem of a model for images like `x` (B, C, H, W), or None if it has none apart.

    passes: the work to come, in passes of one image, over all images. None where that is too
    little; off the CPU, where nothing was measured, and in float64; for a model that is not
    `frozen`, that is compiled, that is run as it is, or with hooks that may hear of the image; and
    where a trial, once while a model is frozen, fails, or shows that what comes before the
    convolution is more than a scaling of each channel, or that the rest looks at more of the image
    than the stem's maps.
    """
    if not isinstance(net, FrozenModel) or x.device.type != "cpu" or x.dtype != torch.float32:
        return None
    if passes < WORTH or not _may_be_parted(net):
        return None
    nothing = torch.zeros_like(x[:1])
    if x.shape[1:] not in net.scalings:
        try:
            net.scalings[x.shape[1:]] = _tried(net, nothing)
        except Exception as error:  # such as of a model that checks the range of its pixels
            if out_of_memory(error):
                raise
            net.scalings[x.shape[1:]] = None
    scaling = net.scalings[x.shape[1:]]
    return None if scaling is None else Stem(net, *scaling, nothing)


def _may_be_parted(net: FrozenModel) -> bool:
    if net.stem is None or not isinstance(net.body, nn.Module):
        return False
    modules = dict(net.body.named_modules())
    if net.stem not in modules or any(hasattr(module, "_orig_mod") for module in modules.values()):
        return False
    conv = modules[net.stem]
    if type(conv) not in _KINDS or conv.weight.dtype == torch.float64:
        return False
    names = list(modules)  # what the stem stands in, and what may come before it
    upto = [modules[name] for name in names[: names.index(net.stem) + 1]]
    hooked = any(heard(module) for module in upto)
    everywhere = any(getattr(torch_module, f"_global{kind}", None) for kind in _HOOKS)
    return not (hooked or everywhere or isinstance(conv.padding, str))


def heard(module: nn.Module) -> bool:
    """Tell whether hooks of a module's own may hear of what goes through it."""
    return any(getattr(module, kind, None) for kind in _HOOKS)


def _tried(net: FrozenModel, nothing: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return scale and shift of what comes before the stem, or None."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(2, *nothing.shape[1:], generator=generator, dtype=nothing.dtype)
    noise = torch.cat([0.5 + 2 * noise[:1], 4 * noise[1:] - 1])  # far outside of [0, 1], too
    scaling = _scaling(net, noise)
    if scaling is None:
        return None
    stem, x = Stem(net, *scaling, nothing), noise[:1].mul(0.1).clamp(0, 1)
    with torch.enable_grad():
        x, seen = x.requires_grad_(True), nothing.clone().requires_grad_(True)
        maps = stem.maps(x).requires_grad_(True)
        whole, told = net(x), stem.rest(maps, seen)
        if told.shape != whole.shape or not (told.requires_grad and whole.requires_grad):
            return None
        weights = torch.linspace(1, 2, whole.shape[1], dtype=whole.dtype)  # their sum may be fixed
        (true,) = _gradients(whole @ weights, (x,))
        try:
            found, beside = _gradients(told @ weights, (maps, seen))
        except _Again:
            return None
    if true is None or found is None or beside is not None:
        return None
    rough = net.precision == "bf16"
    with torch.no_grad():
        same = torch.equal(stem.rest(stem.maps(x), noise[1:]), told)
        alike = near(told, whole, 0.05 if rough else 1e-3)
        alike = alike and near(stem.to_images(found), true, 0.5 if rough else 0.05)
    return scaling if same and alike else None


@torch.no_grad()
def _scaling(net: FrozenModel, noise: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return scale and shift (1, C, 1, 1) of each channel before the stem; None if it is more."""
    ends = torch.zeros_like(noise)
    ends[1] = 1
    x, taken = torch.cat([ends, noise]), _taken(net, torch.cat([ends, noise]))
    if taken is None or taken.shape != x.shape or taken.dtype != x.dtype:
        return None
    shift = taken[:1, :, :1, :1]
    scale = taken[1:2, :, :1, :1] - shift
    bound = 1e-5 * (x.abs() * scale.abs() + shift.abs() + 1e-6)
    fits = ((taken - (scale * x + shift)).abs() <= bound).all()
    return (scale.clone(), shift.clone()) if fits else None


def _taken(net: FrozenModel, x: Tensor) -> Tensor | None:
    """Return what the stem takes in of images, as the model itself gives it."""
    assert net.stem is not None
    body = shallow_copy(net.body)  # type: ignore[arg-type]
    replace_module(body, net.stem, _Stop())
    try:
        FrozenModel(net.original, body, net.precision)(x)
    except _Stopped as stopped:
        return stopped.taken.float()
    return None  # the model went on, whatever its stem did


def _gradients(score: Tensor, to: tuple[Tensor, ...]) -> tuple[Tensor | None, ...]:
    return torch.autograd.grad(score.sum(), to, allow_unused=True)


def near(found: Tensor, true: Tensor, share: float) -> bool:
    """Tell whether the norm of what is amiss is at most that share of what is true."""
    return bool((found - true).norm() <= share * true.norm())


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


class _Stopped(Exception):
    """Where the first convolution would have run."""

    def __init__(self, taken: Tensor) -> None:
        super().__init__()
        self.taken = taken


class _Again(Exception):
    """The stem is run again, in the backward pass."""


class _Stop(nn.Module):
    """Gives what it is called with to whoever called the model."""

    def forward(self, x: Tensor) -> NoReturn:
        raise _Stopped(x)


class Given(nn.Module):
    """Gives `maps` whatever it is called with; low: in bfloat16."""

    def __init__(self, low: bool) -> None:
        super().__init__()
        self.low = low
        self.maps: Tensor | None = None

    def forward(self, _: Tensor) -> Tensor:
        """Return them."""
        if self.maps is None:
            raise _Again
        maps: Tensor = _Fresh.apply(self.maps)
        return maps.bfloat16() if self.low else maps


class _Fresh(torch.autograd.Function):
    """The same values, which may be written over although the gradient to them is wanted."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        return maps.data  # not a view in autograd's eyes

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> Tensor:
        return seed
