"""Convolutions of maps so small that their bfloat16 kernels on CPUs cannot be trusted.

In torch 2.15 the gradient of a convolution's weights in bfloat16 is wrong, not finite, or ends the
process where a map is smaller than the stride, or where some tap of the kernel meets none of its
pixels (`python -m benchmarks.bf16`, on a CPU with AVX-512 BF16). These maps are the last
ones of networks on small images, and cost next to nothing in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

Pair = int | Sequence[int]


class NarrowInFloat32(TorchFunctionMode):
    """While it is entered, narrow convolutions that autocast would run in bfloat16 are in float32.

    Only those whose weights learn: what goes forward, and back to the input, is right.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func`, and outside of autocast where it is a narrow convolution."""
        kwargs = kwargs or {}
        if func is torch.conv2d and torch.is_autocast_enabled("cpu"):
            return _convolved(*args, **kwargs)
        return func(*args, **kwargs)


def _convolved(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """Return the convolution of maps (B, Ci, h, w), or (Ci, h, w)."""
    learns = torch.is_grad_enabled() and weight.requires_grad and input.device.type == "cpu"
    if not learns or not _is_narrow(input, weight, stride, padding, dilation):
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    with torch.autocast("cpu", enabled=False):
        x = input.to(weight.dtype)
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _is_narrow(
    x: Tensor, weight: Tensor, stride: Pair, padding: Pair | str, dilation: Pair
) -> bool:
    """Tell whether a map is smaller than the stride, or some tap meets none of its pixels."""
    for n in (0, 1):
        side, taps = x.shape[n - 2], weight.shape[n - 2]
        step, apart = _of(stride, n), _of(dilation, n)
        if isinstance(padding, str):
            edge = apart * (taps - 1) // 2 if padding == "same" else 0
        else:
            edge = _of(padding, n)
        if side < step or not _all_taps_meet(side, taps, step, edge, apart):
            return True
    return False


def _of(pair: Pair, n: int) -> int:
    if isinstance(pair, int):
        return pair
    return int(pair[n] if len(pair) > 1 else pair[0])


@cache
def _all_taps_meet(side: int, taps: int, stride: int, padding: int, dilation: int) -> bool:
    """Tell whether every tap of one axis falls on a pixel for some place of the kernel."""
    places = range((side + 2 * padding - dilation * (taps - 1) - 1) // stride + 1)
    return all(
        any(0 <= place * stride + tap * dilation - padding < side for place in places)
        for tap in range(taps)
    )
