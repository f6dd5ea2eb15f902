"""Train and eval mode, lent to a piece of work and given back module by module."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the user's module inside Fabric's and DDP's wrappers."""
    while True:
        inner = getattr(model, "_forward_module", None)
        if inner is None and type(model).__name__ == "DistributedDataParallel":
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


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
