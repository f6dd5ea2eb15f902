"""The gradient of a convolution whose weights stand still to its input, and no other."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input

from diascope.models.strided import Phases, gains_from_phases

# Of a seed, the gradient to the output (B, Co, oh, ow), and the size (h, w) of the input.
InputGradient = Callable[[Tensor, torch.Size], Tensor]


class Plainly:
    """The gradient as torch computes it."""

    def __init__(self, conv: nn.Conv2d, weight: Tensor) -> None:
        self.channels = conv.in_channels
        self.place = (conv.stride, conv.padding, conv.dilation, conv.groups)
        self.weight = weight.contiguous(memory_format=torch.channels_last)

    def __call__(self, seed: Tensor, size: torch.Size) -> Tensor:
        """Return the gradient to an input of `size` (h, w), of `seed` (B, Co, oh, ow)."""
        shape = (len(seed), self.channels, *size)
        return conv2d_input(shape, self.weight, seed, *self.place)  # type: ignore[no-any-return, no-untyped-call]


def input_gradient_of(conv: nn.Conv2d, weight: Tensor) -> InputGradient:
    """Return what computes the gradient of a convolution to its input, in the type of `weight`.

    weight: (Co, Ci, kh, kw), the convolution's own, which stands still, in the type wanted.
    """
    kind = Phases if gains_from_phases(conv, weight.device) else Plainly
    return kind(conv, weight)
