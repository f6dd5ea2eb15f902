"""Depthwise convolutions, of which CPUs are slow at some in bfloat16.

With a stride the gradient to the input takes 12 to 35 times as long there as in float32, and with a
kernel above 3x3 that of the weights 3 times (torch 2.15, one thread of an AMD EPYC with AVX-512
BF16, 2026-11-23, single shapes by hand); 3x3 without a stride is 4 times as fast. So the first kind
stays in float32 within a net in bfloat16: mobile nets were slower in it for its sake.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, nn

from diascope.models.recast import recast

MOST_CHANNELS = 2  # of a group; with 4 both arithmetics take as long
_KINDS: dict[type[nn.Conv2d], type[nn.Conv2d]] = {}


def in_float32(conv: nn.Conv2d) -> nn.Conv2d:
    """Return the same convolution, of whatever class, on the same weights, computed in float32.

    It gives what its surroundings compute in, and can be told by `is_in_float32`.
    """
    return recast(conv, _kind(type(conv)))


def is_in_float32(module: nn.Module) -> bool:
    """Tell whether this is a convolution of `in_float32`."""
    return type(module) in _KINDS.values()


def _kind(conv: type[nn.Conv2d]) -> type[nn.Conv2d]:
    """Return the class of `conv` with a forward in float32; there is one of each."""

    def forward(self: nn.Conv2d, x: Tensor) -> Tensor:
        device, given = x.device.type, x.dtype
        if torch.is_autocast_enabled(device):
            given = torch.get_autocast_dtype(device)
        with torch.autocast(device, enabled=False):
            return conv.forward(self, x.to(self.weight.dtype)).to(given)

    if conv not in _KINDS:
        _KINDS[conv] = type(f"{conv.__name__}InFloat32", (conv,), {"forward": forward})
    return _KINDS[conv]


def is_slow_in_bf16(conv: nn.Module, device: torch.device) -> TypeGuard[nn.Conv2d]:
    """Tell whether the gradient of a convolution to its input is slow in bfloat16."""
    if device.type != "cpu" or not isinstance(conv, nn.Conv2d) or is_in_float32(conv):
        return False
    return is_depthwise(conv.weight, conv.groups) and max(conv.stride) > 1


def is_depthwise(weight: Tensor, groups: int) -> bool:
    """Tell whether each group of a convolution is of one channel or two."""
    return groups > 1 and weight.shape[1] <= MOST_CHANNELS
