"""Train and eval mode, lent to a piece of work and given back module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the user's module inside Fabric's and DDP's wrappers, and behind a frozen model."""
    while True:
        inner = getattr(model, "_forward_module", None) or getattr(model, "_frozen_from", None)
        if inner is None and type(model).__name__ == "DistributedDataParallel":
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


@contextmanager
def exactly(model: nn.Module) -> Iterator[nn.Module]:
    """Put the model into eval mode for a verdict: float32 without autocast, without TF32.

    On NVIDIA GPUs convolutions take TF32 (10 bits of mantissa) unless told otherwise.
    """
    device = next((p.device.type for p in unwrapped(model).parameters()), "cpu")
    with (
        arithmetic("ieee", on=device == "cuda"),
        evaluating(model) as inner,
        torch.autocast(device, enabled=False),
    ):
        yield inner


@contextmanager
def arithmetic(precision: Literal["ieee", "tf32"], *, on: bool) -> Iterator[None]:
    """Run float32 convolutions and products of NVIDIA GPUs in `precision`, where `on`.

    What was set is given back. Only the settings that torch has had since 2.9 are touched: it
    refuses to mix them with the older `allow_tf32`.
    """
    cudnn: Any = torch.backends.cudnn
    places: list[Any] = [cudnn.conv, torch.backends.cuda.matmul] if on else []
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = precision
        yield
    finally:
        for place, value in zip(places, before, strict=True):
            place.fp32_precision = value


@contextmanager
def evaluating(model: nn.Module) -> Iterator[nn.Module]:
    """Put every module into eval mode, and give each its own flag back after.

    `model.train()` would wake batch-norm layers that were frozen for fine-tuning; here each
    module's own flag returns. Works on the module inside Fabric's wrapper.
    """
    inner = unwrapped(model)
    flags = [(module, module.training) for module in inner.modules()]
    inner.eval()
    try:
        yield inner
    finally:
        for module, training in flags:
            module.training = training
