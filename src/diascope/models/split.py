"""A stem in bfloat16 that still hears of perturbations below the spacing of bfloat16 pixels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diascope.models.input_gradient import InputGradient, input_gradient_of
from diascope.models.recast import recast
from diascope.models.recording import transforming


class SplitConv2d(nn.Conv2d):
    """A convolution of float32 images in bfloat16 arithmetic, near float32 in its input.

    A convolution is linear, so the image goes in as two bfloat16 terms of 8 bits each, against
    the same weights twice; the sum is taken in float32 inside the kernel. Its weights stand still.
    On a CPU the gradient is computed for one term alone; elsewhere, where nothing was measured, and
    under transforms of functions autograd computes that of both, of which it uses one.
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
        ours = weight.device.type == "cpu" and not isinstance(conv.padding, str)  # as "same" is
        new.gradient = input_gradient_of(conv, weight.bfloat16()) if ours else None
        return new

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of images (B, C, H, W)."""
        if x.requires_grad and self.gradient is not None and not transforming():
            return _OfOneTerm.apply(x, self)  # type: ignore[no-any-return]
        return self.of_terms(x)

    def of_terms(self, x: Tensor) -> Tensor:
        """Return the same, for autograd to follow."""
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
