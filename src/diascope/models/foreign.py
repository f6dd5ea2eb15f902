"""Classifiers that were not trained here: timm names with weights, and factories in Python."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.models.checkpoint import load_model
from diascope.models.create import create_model

WRAPPERS = ("state_dict", "model_state_dict", "model", "state_dict_ema")
PREFIXES = ("module.", "model.", "backbone.", "net.")


def open_model(address: str) -> tuple[nn.Module, dict[str, Any]]:
    """Open a classifier and its card, whatever is known of classes, size and preprocessing.

    `address` is a run folder or a `.safetensors` file that Diascope saved; `NAME:FILE`, a timm
    name and its weights (`.safetensors`, or `.pth` and `.pt`, read with `weights_only`); or
    `package.module:factory`, an `nn.Module` from images in [0, 1] to logits, or what is called
    without arguments for one. timm's own mean and std go in front of a timm model. Raises
    `UserError` where it cannot be opened.
    """
    if Path(address).exists() or ":" not in address:
        model = load_model(address)
        return model, model.card
    name, _, rest = address.partition(":")
    if timm.is_model(name):
        return _timm(name, Path(rest))
    return _factory(address, name, rest), {}


def _timm(name: str, file: Path) -> tuple[nn.Module, dict[str, Any]]:
    state = _weights(file)
    reference = timm.create_model(name, pretrained=False)
    cfg: dict[str, Any] = dict(getattr(reference, "pretrained_cfg", {}))
    try:
        outputs = len(state[f"{cfg['classifier']}.weight"])
        stem = cfg["first_conv"]
        channels = state[f"{stem if isinstance(stem, str) else stem[0]}.weight"].shape[1]
    except (KeyError, TypeError, IndexError):
        raise UserError(
            f"{file}: these are no weights of timm's {name}: no '{cfg.get('classifier')}' or "
            f"'{cfg.get('first_conv')}' among {len(state)} tensors"
        ) from None
    model = create_model(name, outputs, in_chans=channels)
    try:
        model.backbone.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(f"{file}: the weights do not fit timm's {name}: {reason}") from None
    return model.eval(), {
        "size": int(cfg["input_size"][-1]),
        "preprocess": {"channels": channels},
    }


def _weights(file: Path) -> dict[str, Tensor]:
    """Return the state dictionary in a file, out of the wrappers that trainers put around it."""
    if not file.is_file():
        raise UserError(f"{file}: no such weights file")
    try:
        if file.suffix == ".safetensors":
            state: Any = load_file(file)
        else:
            state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
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


def _factory(address: str, module: str, name: str) -> nn.Module:
    unknown = f"{address}: neither a file, nor a timm name before the colon, nor a Python factory"
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise UserError(unknown)
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        factory = getattr(importlib.import_module(module), name, None)
        if factory is None:
            raise UserError(f"{address}: the module {module} has no '{name}'")
        model = factory if isinstance(factory, nn.Module) else factory()
    except ModuleNotFoundError as error:
        raise UserError(f"{unknown} ({error})") from None
    except UserError:
        raise
    except Exception as error:  # whatever the user's own code raises
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise UserError(f"{address}: fails with {reason}") from None
    finally:
        if here in sys.path:
            sys.path.remove(here)
    if not isinstance(model, nn.Module):
        raise UserError(f"{address}: returned a {type(model).__name__}, not an nn.Module")
    return model.eval()
