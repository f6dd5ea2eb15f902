"""Weights in files: our own, with a header, and those of others."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from diascope.errors import UserError

WEIGHTS = "model.safetensors"
FORMAT = "diascope-classifier-1"
WRAPPERS = ("state_dict", "model_state_dict", "model", "state_dict_ema")
PICKLE = (
    "holds a pickle, which can run code when it is opened, and is refused; save its state_dict, "
    "or export it with torch.export.save or torch.onnx.export"
)
PREFIXES = ("module.", "model.", "backbone.", "net.")


def read_own(path: Path, weights: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the header and, where asked for, the tensors of a run folder or our `.safetensors`.

    Raises `UserError` where the file is missing, damaged, or not one of ours.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.exists():
        hint = "is this a finished run?" if path.is_dir() else "there is no such file"
        raise UserError(f"{file}: no model here; {hint}")
    try:
        with safe_open(file, framework="pt") as content:
            metadata = content.metadata() or {}
            tensors = {k: content.get_tensor(k) for k in content.keys()} if weights else {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: not a readable safetensors file ({error})") from None
    if "diascope" not in metadata:
        raise UserError(
            f"{file}: has no Diascope header; only models that Diascope saved can be opened"
        )
    try:
        card: dict[str, Any] = dict(json.loads(metadata["diascope"]))
    except (ValueError, TypeError):
        raise UserError(f"{file}: its Diascope header is damaged; copy the file again") from None
    if card.get("format") != FORMAT:
        raise UserError(f"{file}: written in format {card.get('format')}; this reads {FORMAT}")
    return card, tensors


def is_own(path: Path) -> bool:
    """Tell whether a path is a folder, or a safetensors file with our header."""
    if path.is_dir():
        return True
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    try:
        with safe_open(path, framework="pt") as content:
            return "diascope" in (content.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_saved(file: Path, device: str) -> Any:
    """Return what `torch.save` wrote, weights alone; raises what torch raises, of many kinds."""
    with file.open("rb") as content, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
        return torch.load(content, map_location=device, weights_only=True)


def read_foreign(file: Path) -> dict[str, Tensor]:
    """Return the state dictionary in a file, out of the wrappers that trainers put around it.

    safetensors, or what `torch.save` wrote (`.pth`, `.pt`, `.bin`), of which nothing but weights
    is read; told apart by their content. Raises `UserError` where there are none.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such weights file")
    try:
        with file.open("rb") as content:
            is_safe = content.read(9)[8:] == b"{"
        state: Any = load_file(file) if is_safe else read_saved(file, "cpu")
    except UnpicklingError:
        raise UserError(f"{file}: {PICKLE}") from None
    except Exception as error:  # of many kinds, for a damaged file
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{file}: cannot be read as weights alone ({reason})") from None
    for key in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise UserError(f"{file}: holds no dictionary of weights")
    weights: dict[str, Tensor] = state
    for prefix in PREFIXES:
        if weights and all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights
