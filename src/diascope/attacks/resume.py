"""Results of a long computation kept on disk, beside what they were computed from."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.files import replacing
from diascope.models.modes import unwrapped


def digest(value: object) -> str:
    """Return 32 hexadecimal digits that stand for a value, the same in every process.

    Tensors count by dtype, shape and bytes; modules by their structure, parameters and buffers;
    dataclasses by their class and fields; sequences by their items; anything else by its repr.
    """
    state = hashlib.blake2b(digest_size=16)
    _feed(state, value)
    return state.hexdigest()


def save(path: Path, tensors: Mapping[str, Tensor], inputs: Mapping[str, str]) -> None:
    """Write `tensors` and the digests of their inputs to `path`, complete or not at all."""
    with replacing(path) as temporary:
        save_file({k: v.contiguous() for k, v in tensors.items()}, temporary, dict(inputs))


def load(path: Path, inputs: Mapping[str, str]) -> dict[str, Tensor] | None:
    """Return the tensors at `path`, or None if there is no such file.

    Raises `UserError` if they come from other inputs, and says which, or cannot be read.
    """
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            found = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{path}: cannot be read as a checkpoint ({' '.join(str(error).split())}); "
            "delete it to begin anew"
        ) from None
    other = [name for name, value in inputs.items() if found.get(name) != value]
    if other:
        raise UserError(
            f"{path}: a checkpoint of other inputs ({', '.join(other)}); "
            "delete it to begin anew, or give another path"
        )
    return tensors


def _feed(state: Any, value: object) -> None:
    if isinstance(value, Tensor):
        state.update(f"{value.dtype}{tuple(value.shape)}".encode())
        for part in torch.split(value.detach().reshape(-1), 1 << 24):
            state.update(part.cpu().contiguous().view(torch.uint8).numpy())
    elif isinstance(value, nn.Module):
        inner = unwrapped(value)
        state.update(re.sub(r"0x[0-9a-f]+", "", repr(inner)).encode())
        for name, tensor in (*inner.named_parameters(), *inner.named_buffers()):
            state.update(name.encode())
            _feed(state, tensor)
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        state.update(f"{type(value).__module__}.{type(value).__qualname__}(".encode())
        for each in dataclasses.fields(value):
            state.update(f"{each.name}=".encode())
            _feed(state, getattr(value, each.name))
    elif isinstance(value, list | tuple):
        state.update(f"[{len(value)}".encode())
        for item in value:
            _feed(state, item)
    else:
        state.update(f"{value!r};".encode())
