"""`NAME:FILE`: a name that `create_model` knows, and its weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diascope.errors import UserError
from diascope.models.create import create_model, is_known
from diascope.models.namings import renamed
from diascope.models.opening import KINDS, Address, Kind, Opened
from diascope.models.stored import read_foreign


def _claims(address: Address) -> bool:
    return address.content == "absent" and ":" in address.text and is_known(address.before)


def _open(address: Address) -> Opened:
    """Build the model with as many outputs and channels as the weights have.

    timm's own mean and std go in front of it.
    """
    name, file = address.before, Path(address.after).expanduser()
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
    size = int(cfg["input_size"][-1])
    card = {"size": size, "preprocess": {"channels": channels}}
    return Opened(model, "timm", card, channels, size)


KINDS.register("timm")(Kind(_claims, _open))
