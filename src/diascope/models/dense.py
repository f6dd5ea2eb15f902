"""Convolutions over maps of a few pixels, as one matrix product.

On a 2x2 map a 3x3 convolution spends 20 of its 36 taps on padding, and its kernels are made for
larger maps. Written out as a matrix it has 16/9 of the weights and 4/9 of the multiplications:
512 to 512 channels, 32 images on one core without AMX: 10 ms forward and backward against 32.
"""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MOST_PAIRS = 16  # of an input and an output pixel: 2x2 to 2x2


class DenseConv2d(nn.Module):
    """A convolution of maps of one `size` (height, width); maps of another take the convolution."""

    def __init__(self, conv: nn.Conv2d, size: tuple[int, int]) -> None:
        super().__init__()
        self.conv, self.size = conv, size
        self.out = out_size(conv, size)
        places = itertools.product(*(range(n) for n in (*self.out, *size)))
        weight = conv.weight.detach()
        shape = (*self.out, weight.shape[0], *size, weight.shape[1])
        matrix = weight.new_zeros(shape)  # (oh, ow, Co, h, w, Ci)
        for oy, ox, iy, ix in places:
            tap = _tap(conv, 0, oy, iy), _tap(conv, 1, ox, ix)
            if None not in tap:
                matrix[oy, ox, :, iy, ix, :] = weight[:, :, tap[0], tap[1]]
        rows = self.out[0] * self.out[1] * weight.shape[0]
        self.matrix = nn.Parameter(matrix.view(rows, -1), requires_grad=False)
        bias = None if conv.bias is None else conv.bias.detach().repeat(self.out[0] * self.out[1])
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of maps (B, Ci, h, w)."""
        if tuple(x.shape[2:]) != self.size:
            return self.conv(x)  # type: ignore[no-any-return]
        flat = x.permute(0, 2, 3, 1).flatten(1)
        out = F.linear(flat, self.matrix, self.bias)
        channels = out.shape[1] // (self.out[0] * self.out[1])
        return out.view(len(x), *self.out, channels).permute(0, 3, 1, 2)


def gains_from_dense(module: nn.Module, size: tuple[int, int], device: torch.device) -> bool:
    """Tell whether a convolution of maps of `size` is worth writing out; measured on CPUs only."""
    if device.type != "cpu" or type(module) is not nn.Conv2d:
        return False
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return False
    out = out_size(module, size)
    taps = module.kernel_size[0] * module.kernel_size[1]
    return size[0] * size[1] * out[0] * out[1] <= MOST_PAIRS and 1 < size[0] * size[1] <= taps


def out_size(conv: nn.Conv2d, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width of the convolution's output."""
    height, width = (
        (size[n] + 2 * int(conv.padding[n]) - conv.dilation[n] * (conv.kernel_size[n] - 1) - 1)
        // conv.stride[n]
        + 1
        for n in range(2)
    )
    return height, width


def _tap(conv: nn.Conv2d, n: int, out: int, place: int) -> int | None:
    """Return which tap of the kernel reads pixel `place` for output pixel `out`, if one does."""
    tap, rest = divmod(place + int(conv.padding[n]) - out * conv.stride[n], conv.dilation[n])
    return tap if rest == 0 and 0 <= tap < conv.kernel_size[n] else None
