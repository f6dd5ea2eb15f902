"""The biases of a running model, and their gradients as a backward pass meets them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from timm.layers.attention import Attention
from timm.layers.norm_act import BatchNormAct2d
from timm.layers.squeeze_excite import EffectiveSEModule, SEModule
from timm.models._efficientnet_blocks import SqueezeExcite
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

from diascope.explain.layers import Places, places_of, running
from diascope.models.attention import SoftAttention
from diascope.models.dense import DenseConv2d
from diascope.models.normalise import Normalise

_NO_BIAS = (
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.Identity, nn.Flatten, nn.Unflatten, nn.Dropout),
    *(nn.Dropout2d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d),
)
_CURVED = (
    *(nn.GELU, nn.SiLU, nn.Sigmoid, nn.Tanh, nn.Hardswish, nn.Hardsigmoid, nn.ReLU6, nn.ELU),
    *(nn.Softplus, nn.Mish, nn.Softmax, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm),
    *(SoftAttention, Attention, SEModule, EffectiveSEModule, SqueezeExcite),
)
_FAR = 64.0  # a power of two, so that scaling by it rounds nothing


@dataclass(frozen=True)
class BiasGradient:
    """The gradient of the score at one output of a module, and the bias added there.

    name: the module's, and behind # the number of its call from the second on. gradient: of the
    output's shape. bias: broadcasts to it; None where `gradient` is the product already, as that
    of a curved layer's implicit bias is. places: how the output lies over the image, None where
    it does not.
    """

    name: str
    gradient: Tensor
    bias: Tensor | None
    places: Places | None


Take = Callable[[BiasGradient], None]


def is_curved(module: nn.Module) -> bool:
    """Tell whether a module is known not to be piecewise linear through zero."""
    return isinstance(module, _CURVED)


@contextmanager
def bias_gradients(net: nn.Module, image: Tensor, take: Take) -> Iterator[None]:
    """Call `take` with every bias-gradient that the backward passes inside meet, last layers first.

    image: any of the images, for their size. Biases are those of convolutions and linear layers,
    and so of the batch-norms folded into them; batch-norm's own, beta - gamma mean / sigma; the
    offset of the input normalisation and of any other affine module, which is tried out. A layer
    that is not piecewise linear through zero (GELU, sigmoid, ReLU6, layer-norm) has the implicit
    bias y - J x of its linear approximation at its input x (Srinivas and Fleuret 2019, section
    3), for another forward and backward of that layer alone; so have timm's gates of channels and
    its attention, and soft attention, each taken as one layer. What a model computes outside of
    its modules is taken to be linear: the bias of other products is not found, nor are
    parameters that it adds by itself, such as embeddings of the position.
    """
    units = list(_units(running(net)))
    halting = [u for _, u in units if getattr(u, "inplace", False) and not isinstance(u, _NO_BIAS)]
    handles = []
    try:
        for module in halting:  # their input is needed after them
            module.inplace = False  # type: ignore[assignment]
        for name, module in units:
            place = module.drop if isinstance(module, BatchNormAct2d) else module
            handles.append(place.register_forward_hook(_hook(name, module, image, take)))
        yield
    finally:
        for handle in handles:
            handle.remove()
        for module in halting:
            module.inplace = True  # type: ignore[assignment]


def _units(body: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Give the modules that may have a bias, none inside another but after a batch-norm."""
    whole = (_ConvNd, nn.Linear, DenseConv2d, _BatchNorm, *_CURVED)
    last = None
    for name, module in body.named_modules():
        if last is not None and name.startswith(f"{last}."):
            continue
        leaf = next(module.children(), None) is None
        if leaf or isinstance(module, whole):
            last = None if isinstance(module, BatchNormAct2d) else name
            if not isinstance(module, _NO_BIAS):
                yield name, module


def _hook(
    name: str, module: nn.Module, image: Tensor, take: Take
) -> Callable[[nn.Module, Any, Any], Tensor | None]:
    calls, bias, curved = 0, _bias(module), isinstance(module, _CURVED)
    known = bias is not None or curved or isinstance(module, _ConvNd | nn.Linear | DenseConv2d)

    @torch.no_grad()
    def hook(_: nn.Module, inputs: Any, out: Any) -> Tensor | None:
        nonlocal calls, bias, curved, known
        if not isinstance(out, Tensor) or not out.requires_grad:
            return None
        calls += 1
        if not known:
            known, (bias, curved) = True, _tried(module, inputs)
        if bias is None and not curved:
            return None
        call = (name or "model") + (f"#{calls}" if calls > 1 else "")
        places = places_of(module, out, image) if len(out) == len(image) else None
        kept: Any = out
        if out._is_view():  # work in place on a view would leave it, and its hook, out of the graph
            with torch.enable_grad():
                kept = out.clone()
        if curved:
            x, y = inputs[0].detach(), kept.detach()
            kept.register_hook(lambda g: _take_implicit(module, call, x, y, g, places, take))
        else:
            added = bias
            kept.register_hook(lambda g: take(BiasGradient(call, g, added, places)))
        return kept  # type: ignore[no-any-return]

    return hook


def _bias(module: nn.Module) -> Tensor | None:
    """Return the bias of a known kind of module, as it broadcasts to the output."""
    if isinstance(module, _BatchNorm) and module.running_mean is not None:
        assert module.running_var is not None
        scale = (module.running_var + module.eps).rsqrt()
        scale = scale if module.weight is None else scale * module.weight
        bias = -module.running_mean * scale
        bias = bias if module.bias is None else bias + module.bias
        return bias.detach().view(-1, 1, 1) if isinstance(module, nn.BatchNorm2d) else bias.detach()
    if isinstance(module, Normalise):
        return -module.mean[0] / module.std[0]
    conv = module.conv if isinstance(module, DenseConv2d) else module
    if isinstance(conv, _ConvNd | nn.Linear) and conv.bias is not None:
        spread = [1] * len(conv.kernel_size) if isinstance(conv, _ConvNd) else []
        return conv.bias.detach().view(-1, *spread)
    return None


def _tried(module: nn.Module, inputs: Any) -> tuple[Tensor | None, bool]:
    """Return the bias of an unknown module, if it is affine, and whether it is curved.

    It is asked at zero, at a random input and far behind that, where |x| and ReLU without a bias
    are straight too.
    """
    if len(inputs) != 1 or not isinstance(inputs[0], Tensor) or not inputs[0].is_floating_point():
        return None, False
    like = inputs[0][:1]
    wide = torch.promote_types(like.dtype, torch.float32)
    there = torch.randn(like.shape, generator=torch.Generator().manual_seed(0)).to(
        like.device, wide
    )
    with torch.autocast(like.device.type, enabled=False):
        zero, near, far = (module.forward(there * f) for f in (0.0, 1.0, _FAR))
    if not all(isinstance(y, Tensor) for y in (zero, near, far)):
        return None, False
    scale = torch.stack([y.abs().amax() for y in (zero, near)]).amax()
    bend = ((far - zero) / _FAR - (near - zero)).abs().amax()
    if bend > 1e-4 * scale:
        return None, True
    return (zero if zero.count_nonzero() else None), False


def _take_implicit(
    module: nn.Module,
    name: str,
    x: Tensor,
    y: Tensor,
    gradient: Tensor,
    places: Places | None,
    take: Take,
) -> None:
    """Take gradient * (y - J x) of a curved layer; where x has another shape, as one number."""
    wide = torch.promote_types(gradient.dtype, torch.float32)
    low = any(p.dtype == torch.bfloat16 for p in module.parameters())
    with torch.enable_grad(), torch.autocast(x.device.type, torch.bfloat16, enabled=low):
        x = x.to(wide).requires_grad_(True)
        out = module.forward(x)
    (back,) = torch.autograd.grad(out, x, gradient.to(out.dtype))
    after, before = gradient.to(wide) * y.to(wide), back * x.detach()
    if after.shape == before.shape:
        take(BiasGradient(name, after - before, None, places))
        return
    rest = after.flatten(1).sum(1) - before.flatten(1).sum(1)
    take(BiasGradient(name, rest[:, None], None, None))
