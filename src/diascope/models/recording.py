"""Whether operations are being recorded or changed, where a faster way round must not be taken."""

from __future__ import annotations

import torch
from torch.autograd import forward_ad


def transforming() -> bool:
    """Tell whether operations are recorded, compiled, or changed by torch.func's transforms,
    or that tangents go along with them.

    What is done another way to be faster is done plainly there.
    """
    if torch._C._get_tracing_state() is not None or torch.compiler.is_compiling():
        return True
    with_tangents = forward_ad._current_level >= 0
    return with_tangents or torch._C._are_functorch_transforms_active()
