"""Whether operations are being recorded or changed, where a faster way round must not be taken."""

from __future__ import annotations

import torch


def transforming() -> bool:
    """Tell whether operations are recorded, compiled, or changed by torch.func's transforms.

    What is done another way to be faster is done plainly there.
    """
    tracing = torch._C._get_tracing_state() is not None
    return tracing or torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active()
