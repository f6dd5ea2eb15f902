"""A stem whose max-pooling compares in float32, in a model that otherwise runs in bfloat16.

Neighbours in a smooth image differ by less than the spacing of bfloat16 values: rounded, they tie,
and the gradient goes to the first of them instead of the largest, which shifts it by a pixel. In a
trained ResNet-18 this is all that sets bfloat16 gradients apart from float32 ones: everything else
rounded, they correlate over 0.999 in rank.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.models.input_gradient import InputGradient, input_gradient_of
from diascope.models.recast import recast
from diascope.models.recording import transforming


class ExactConv2d(nn.Conv2d):
    """A convolution of images in float32 whose gradient to the input is taken in bfloat16.

    Its weights stand still.
    """

    gradient: InputGradient  # in bfloat16

    @classmethod
    def of(cls, conv: nn.Conv2d) -> ExactConv2d:
        """Return the same convolution, on the same weights."""
        new = recast(conv, cls)
        new.gradient = input_gradient_of(conv, conv.weight.detach().bfloat16())
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of images (B, C, H, W), float32."""
        with torch.autocast(x.device.type, enabled=False):
            if not x.requires_grad or transforming():
                return super().forward(x.float())
            return _LowGradient.apply(x.float(), self)  # type: ignore[no-any-return]


class RoundedMaxPool2d(nn.MaxPool2d):
    """A max-pooling that compares what it is given, and rounds what it gives under autocast."""

    @classmethod
    def of(cls, pool: nn.MaxPool2d) -> RoundedMaxPool2d:
        """Return the same pooling."""
        return recast(pool, cls)

    def forward(self, x: Tensor) -> Tensor:
        """Return the maxima of maps (B, C, h, w)."""
        out: Tensor = super().forward(x)
        device = x.device.type
        if not torch.is_autocast_enabled(device):
            return out
        return out.to(torch.get_autocast_dtype(device))


class _LowGradient(torch.autograd.Function):
    """The convolution; of its gradients only that to the input, in bfloat16."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: ExactConv2d) -> Tensor:
        ctx.conv, ctx.size = conv, x.shape[2:]
        return F.conv2d(
            x, conv.weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups
        )

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> tuple[Tensor, None]:
        return ctx.conv.gradient(seed.bfloat16(), ctx.size).float(), None
