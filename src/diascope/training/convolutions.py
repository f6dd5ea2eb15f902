"""How training computes convolutions on a CPU, past kernels of torch 2.15 that are wrong or slow.

In float32 and bfloat16, the gradient of the weights of a 1x1 convolution with a stride may write
beyond its memory (8 to 8 channels, maps of 14x14, channels last, batches of 7, two threads), which
ends the process at some later time. Without the stride, on the pixels that it reads, it is the same
convolution.

In bfloat16, the gradient of a convolution's weights is far off or not finite where a map is smaller
than the stride, or where some tap of the kernel meets none of its pixels; these, the last of
networks on small images, cost next to nothing in float32. And depthwise convolutions with a stride
or a large kernel are slow (`diascope.models.depthwise`).

`python -m benchmarks.bf16` measures the second and the third.
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


class SoundConvolutions(TorchFunctionMode):
    """While it is entered, convolutions are computed so, and leave autocast where float32 is due.

    Only those whose weights learn, of two dimensions, and called by Python; and as well in a
    backward pass, where what was not kept is computed again (`torch.utils.checkpoint`).
    """

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Call `func`, or what stands for it."""
        kwargs = kwargs or {}
        if func is Tensor.backward and _is_plain(args, kwargs):
            with self:  # which is off while this is run
                return _descended(*args)
        return (_convolved if func is torch.conv2d else func)(*args, **kwargs)


def _is_plain(args: Sequence[Any], kwargs: dict[str, Any]) -> bool:
    """Tell whether a backward pass is that of one number, without options."""
    options = [*args[1:], *kwargs.values()]
    return args[0].numel() == 1 and all(each is None or each is False for each in options)


def _descended(loss: Tensor) -> None:
    """Add the gradients of a loss, as `loss.backward()`, which no mode would be on within."""
    engine = torch.autograd.Variable._execution_engine
    engine.run_backward(  # type: ignore[no-untyped-call, unused-ignore]
        (loss,),
        (torch.ones_like(loss),),
        False,
        False,
        (),
        allow_unreachable=True,
        accumulate_grad=True,
    )


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
    if learns and _skips(weight, stride, padding):
        input, stride = _every(input, *_each(stride)), 1
    kept = learns and torch.is_autocast_enabled("cpu")
    kept = kept and (
        _is_narrow(input, weight, stride, padding, dilation) or _is_slow(weight, stride, groups)
    )
    if not kept:
        return torch.conv2d(input, weight, bias, stride, padding, dilation, groups)
    with torch.autocast("cpu", enabled=False):
        x = input.to(weight.dtype)
        return torch.conv2d(x, weight, bias, stride, padding, dilation, groups)


def _every(maps: Tensor, down: int, across: int) -> Tensor:
    return maps[..., ::down, ::across]


def _skips(weight: Tensor, stride: Pair, padding: Pair | str) -> bool:
    """Tell whether a convolution reads single pixels, and not all of them."""
    if max(weight.shape[2:]) > 1 or max(_each(stride)) == 1:
        return False
    return padding == "valid" or not (isinstance(padding, str) or any(_each(padding)))


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
    large = max(weight.shape[2:]) > 3 or max(_each(stride)) > 1
    return large and is_depthwise(weight, groups)


def _each(pair: Pair) -> tuple[int, int]:
    return _of(pair, 0), _of(pair, 1)


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
