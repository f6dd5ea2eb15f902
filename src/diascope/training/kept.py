"""The convolutions that training in bfloat16 leaves in float32 on a CPU.

Those of narrow maps, because their kernels are wrong: in torch 2.15 the gradient of a convolution's
weights is far off or not finite where a map is smaller than the stride, or where some tap of
the kernel meets none of its pixels. They are the last of networks on small images, and cost
next to nothing. And depthwise ones with a stride or a large kernel, because they are slow
(`diascope.models.depthwise`). `python -m benchmarks.bf16` measures both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from diascope.models.depthwise import is_depthwise

Pair = int | Sequence[int]


class KeptInFloat32(TorchFunctionMode):
    """While it is entered, these convolutions are in float32 where autocast is on.

    Only those whose weights learn, of two dimensions, and called by Python.
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func`, and outside of autocast where it is such a convolution."""
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
    kept = learns and (
        _is_narrow(input, weight, stride, padding, dilation) or _is_slow(weight, stride, groups)
    )
    if not kept:
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


def _is_slow(weight: Tensor, stride: Pair, groups: int) -> bool:
    large = max(weight.shape[2:]) > 3 or max(_of(stride, 0), _of(stride, 1)) > 1
    return large and is_depthwise(weight, groups)


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
