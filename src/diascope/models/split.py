"""A stem in bfloat16 that still hears of perturbations below the spacing of bfloat16 pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diascope.models.recast import recast
from diascope.models.recording import transforming
from diascope.models.strided import InputGradient, input_gradient_of


class SplitConv2d(nn.Conv2d):
    """A convolution of float32 images in bfloat16 arithmetic, near float32 in its input.

    A convolution is linear, so the image goes in as two bfloat16 terms of 8 bits each, against
    the same weights twice; the sum is taken in float32 inside the kernel. The gradient is that of
    one term, to all of the image. Its weights stand still.
    """

    gradient: InputGradient | None  # in bfloat16; None: autograd's

    @classmethod
    def of(cls, conv: nn.Conv2d) -> SplitConv2d:
        """Return the same convolution, of twice the channels."""
        if conv.groups != 1 or conv.padding_mode != "zeros":
            raise ValueError("only plain convolutions can be split")
        new, weight = recast(conv, cls), conv.weight.detach()
        new._parameters["weight"] = nn.Parameter(torch.cat([weight, weight], 1), False)
        new.in_channels = 2 * conv.in_channels
        named = isinstance(conv.padding, str)  # "same"
        new.gradient = None if named else input_gradient_of(conv, weight.bfloat16())
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of images (B, C, H, W)."""
        on_cpu = x.device.type == "cpu"
        if x.requires_grad and on_cpu and self.gradient is not None and not transforming():
            return _OfOneTerm.apply(x, self)  # type: ignore[no-any-return]
        return self.of_terms(x)

    def of_terms(self, x: Tensor) -> Tensor:
        """Return the same; autograd's gradient is of both terms, half of it for nothing."""
        high = x.bfloat16()
        low = (x.detach() - high.detach().float()).bfloat16()  # the gradient goes through `high`
        return super().forward(torch.cat([high, low], 1))


class _OfOneTerm(torch.autograd.Function):
    """The convolution; of its gradients only that to the input."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, conv: SplitConv2d) -> Tensor:
        ctx.conv, ctx.size, ctx.dtype = conv, x.shape[2:], x.dtype
        return conv.of_terms(x)

    @staticmethod
    def backward(ctx: Any, seed: Tensor) -> tuple[Tensor, None]:
        return ctx.conv.gradient(seed.bfloat16(), ctx.size).to(ctx.dtype), None
