"""Classifiers that were not trained here: timm names with weights, and factories in Python."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from torch import nn

from diascope.errors import UserError
from diascope.models.checkpoint import load_model
from diascope.models.create import create_model, is_known
from diascope.models.namings import renamed
from diascope.models.stored import read_foreign


def open_model(address: str) -> tuple[nn.Module, dict[str, Any]]:
    """Open a classifier and its card, whatever is known of classes, size and preprocessing.

    `address` is a run folder or a `.safetensors` file that Diascope saved; `NAME:FILE`, a name
    that `create_model` knows and its weights (see there); or
    `package.module:factory`, an `nn.Module` from images in [0, 1] to logits, or what is called
    without arguments for one. timm's own mean and std go in front of a timm model. Raises
    `UserError` where it cannot be opened.
    """
    if Path(address).exists() or ":" not in address:
        model = load_model(address)
        return model, model.card
    name, _, rest = address.partition(":")
    if is_known(name):
        return _named(name, Path(rest))
    return _factory(address, name, rest), {}


def _named(name: str, file: Path) -> tuple[nn.Module, dict[str, Any]]:
    state = read_foreign(file)
    reference = create_model(name, 1).backbone
    cfg: Any = getattr(reference, "pretrained_cfg", {})
    head, stem = cfg.get("classifier"), cfg.get("first_conv")
    stem = stem if isinstance(stem, str) or not stem else stem[0]
    for reading in renamed(state, reference):
        if f"{head}.weight" in reading and f"{stem}.weight" in reading:
            outputs, channels = len(reading[f"{head}.weight"]), reading[f"{stem}.weight"].shape[1]
            break
    else:
        raise UserError(
            f"{file}: these are no weights of {name}: no '{head}' or '{stem}' among "
            f"{len(state)} tensors"
        )
    model = create_model(name, outputs, in_chans=channels, weights=file)
    if model.fresh:
        raise UserError(f"{file}: the weights do not fit {name}: no '{model.fresh[-1]}'")
    return model.eval(), {
        "size": int(cfg["input_size"][-1]),
        "preprocess": {"channels": channels},
    }


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
