"""Classifiers that Diascope saved: a run folder, or its `.safetensors`."""

from __future__ import annotations

from diascope.models.checkpoint import load_model
from diascope.models.opening import KINDS, Address, Kind, Opened


def _claims(address: Address) -> bool:
    if address.content in ("run", "safetensors"):
        return True
    return address.content == "absent" and ":" not in address.text


def _open(address: Address) -> Opened:
    model = load_model(address.path)
    return Opened(model, "run", model.card)


KINDS.register("run")(Kind(_claims, _open))
