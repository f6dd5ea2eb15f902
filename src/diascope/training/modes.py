"""Train mode that leaves frozen batch-norm asleep."""

from __future__ import annotations

from torch import nn

from diascope.models import unwrapped


def train_mode(model: nn.Module) -> None:
    """Put the model into train mode, but for normalisation layers that are frozen.

    A layer with running statistics whose every parameter is frozen (`requires_grad` false) goes
    to eval mode: `model.train()` would let its statistics drift although its weights cannot
    follow.
    """
    inner = unwrapped(model)
    inner.train()
    for module in inner.modules():
        own = list(module.parameters(recurse=False))
        if hasattr(module, "running_mean") and own and not any(p.requires_grad for p in own):
            module.eval()
