"""A module as one of another kind."""

from __future__ import annotations

import copy
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def recast(module: nn.Module, kind: type[M]) -> M:
    """Return a module of `kind` with the fields of `module`, on the same tensors."""
    new = kind.__new__(kind)
    new.__dict__.update(copy.copy(module).__dict__)
    new._parameters, new._buffers = dict(module._parameters), dict(module._buffers)
    return new
