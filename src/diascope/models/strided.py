"""Convolutions with a stride, whose gradient to the input is computed faster.

CPU kernels are poor at the gradient of a strided convolution to an input of a few channels: that of
a 7x7 stem of stride 2 takes four times its forward. A pixel hears only of the taps that fall on it,
which depend on its place modulo the stride; for each such phase the gradient is a convolution of
stride 1, and all phases are one, whose pixels are then put in their places. One
thread without AMX, 16 images: the gradient of that stem at 224 in 90 ms instead of 240, at 64 in 8
instead of 21, of 16x16 patches at 224 in 7 instead of 50; above 8 channels nothing is gained. In
bfloat16, on two threads with AVX-512 BF16, that of 22 images at 224 in 32 instead of 132.

The kernels are poor, too, at a 1x1 convolution with a stride, which reads one pixel of each square
and leaves the rest without a gradient, over however many channels: the shortcuts of residual
networks. Without the stride, its gradient then put in its places, that takes half as long.
"""

from __future__ import annotations

from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.models.recast import recast
from diascope.models.recording import transforming

MOST_CHANNELS = 8


class Phases:
    """The gradient of a strided convolution to its input.

    weight: (Co, Ci, kh, kw), the convolution's own, which stands still, in the type wanted.
    """

    def __init__(self, conv: nn.Conv2d, weight: Tensor) -> None:
        self.stride = stride = conv.stride[0]
        first, last = zip(*(_reach(conv, n) for n in range(2)), strict=True)
        # the most output pixels that a pixel hears of before and after its own
        self.before, self.after = last, (-first[0], -first[1])
        pads = []  # so that the taps are whole strides from that of the first m - o on
        for n in (1, 0):
            lead = -(stride * first[n] + int(conv.padding[n]))
            count = stride * (last[n] - first[n] + 1)
            pads += [lead, count - lead - conv.kernel_size[n]]
        taps = F.pad(weight, pads)  # (Co, Ci, n s, n s)
        taps = taps.reshape(*taps.shape[:2], -1, stride, taps.shape[3] // stride, stride)
        phases = taps.flip(2, 4).permute(3, 5, 1, 0, 2, 4).flatten(0, 2)  # (s^2 Ci, Co, n, n)
        self.weight = phases.contiguous(memory_format=torch.channels_last)

    def __call__(self, seed: Tensor, size: torch.Size) -> Tensor:
        """Return the gradient to an input of `size` (h, w), of `seed` (B, Co, oh, ow)."""
        stride, channels = self.stride, len(self.weight) // self.stride**2
        many = [-(-side // stride) for side in size]  # pixels of each phase
        need = [many[n] + self.after[n] - seed.shape[2 + n] for n in range(2)]
        pad = [max(self.before[n], need[n], 0) for n in range(2)]
        out = F.conv2d(seed, self.weight, padding=pad)
        for n in range(2):
            out = _narrowed(out, 2 + n, pad[n] - self.before[n], many[n])
        out = out.permute(0, 2, 3, 1).reshape(len(out), *many, stride, stride * channels)
        whole = [side * stride for side in many]
        out = out.transpose(2, 3).reshape(len(out), *whole, channels).permute(0, 3, 1, 2)
        return _narrowed(_narrowed(out, 2, 0, size[0]), 3, 0, size[1])


def _narrowed(x: Tensor, axis: int, start: int, length: int) -> Tensor:
    """Return the part of `x`; itself where that is all of it."""
    return x if x.shape[axis] == length else x.narrow(axis, start, length)


class Places:
    """The gradient of a 1x1 convolution with a stride, and no padding, to its input.

    weight: (Co, Ci, 1, 1), the convolution's own, which stands still, in the type wanted.
    """

    def __init__(self, conv: nn.Conv2d, weight: Tensor) -> None:
        self.stride = conv.stride
        self.weight = weight.transpose(0, 1).contiguous()  # (Ci, Co, 1, 1)

    def __call__(self, seed: Tensor, size: torch.Size) -> Tensor:
        """Return the gradient to an input of `size` (h, w), of `seed` (B, Co, oh, ow)."""
        out = F.conv2d(seed, self.weight).permute(0, 2, 3, 1)  # (B, oh, ow, Ci)
        down, across = self.stride
        out = F.pad(out[:, :, None, :, None], (0, 0, 0, across - 1, 0, 0, 0, down - 1))
        whole = (seed.shape[2] * down, seed.shape[3] * across)
        out = out.reshape(len(seed), *whole, len(self.weight)).permute(0, 3, 1, 2)
        return _narrowed(_narrowed(out, 2, 0, size[0]), 3, 0, size[1])


class StridedConv2d(nn.Conv2d):
    """A convolution that has a faster gradient to its input; its weights stand still."""

    gradient: Phases | Places

    @classmethod
    def of(cls, conv: nn.Conv2d) -> StridedConv2d:
        """Return the same convolution, on the same weights, with the faster gradient."""
        new = recast(conv, cls)
        kind = Places if _takes_places(conv) else Phases
        new.gradient = kind(conv, conv.weight.detach())
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of maps (B, Ci, h, w)."""
        if not x.requires_grad or self.weight.requires_grad or transforming():
            return super().forward(x)
        return _Faster.apply(x, self)  # type: ignore[no-any-return]


def gains_from_phases(module: nn.Module, device: torch.device) -> bool:
    """Tell whether a convolution is worth a gradient in phases; measured on CPUs only."""
    if not _is_plain(module, device, torch.float32) or module.in_channels > MOST_CHANNELS:
        return False
    stride = module.stride[0]
    return module.stride == (stride, stride) and 1 < stride <= min(module.kernel_size)


def gains_from_places(module: nn.Module, device: torch.device) -> bool:
    """Tell whether a convolution is worth a gradient put in its places; measured on CPUs only."""
    return _is_plain(module, device, torch.float32, torch.bfloat16) and _takes_places(module)


def _takes_places(conv: nn.Conv2d) -> bool:
    return conv.kernel_size == (1, 1) and conv.padding == (0, 0) and max(conv.stride) > 1


def _is_plain(module: nn.Module, device: torch.device, *types: torch.dtype) -> TypeGuard[nn.Conv2d]:
    if device.type != "cpu" or type(module) is not nn.Conv2d or isinstance(module.padding, str):
        return False
    weight = module._parameters.get("weight")
    zeros = module.padding_mode == "zeros" and module.dilation == (1, 1)
    return zeros and module.groups == 1 and weight is not None and weight.dtype in types


def _reach(conv: nn.Conv2d, n: int) -> tuple[int, int]:
    """Return the least and the largest of m - o over all taps of one axis.

    Pixel s m + r meets output pixel o at tap s (m - o) + r + padding.
    """
    stride, padding = conv.stride[n], int(conv.padding[n])
    return -((stride - 1 + padding) // stride), (conv.kernel_size[n] - 1 - padding) // stride


class _Faster(torch.autograd.Function):
    """The convolution; of its gradients only that to the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: StridedConv2d) -> Tensor:
        ctx.conv, ctx.size, ctx.dtype = conv, x.shape[2:], x.dtype
        return nn.Conv2d.forward(conv, x)

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> tuple[Tensor, None]:
        conv = ctx.conv
        with torch.autocast(seed.device.type, enabled=False):  # the caller's is not the forward's
            found = conv.gradient(seed.to(conv.weight.dtype), ctx.size)
        return found.to(ctx.dtype), None
