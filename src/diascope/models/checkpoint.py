"""Classifiers on disk: weights in safetensors, everything else in its JSON header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn

from diascope import __version__
from diascope.errors import UserError
from diascope.files import replacing
from diascope.models.classifier import Classifier, ModelSpec
from diascope.models.create import create_model
from diascope.models.modes import unwrapped
from diascope.models.stored import FORMAT, WEIGHTS, read_own

__all__ = ["WEIGHTS", "load_model", "read_card", "save_model"]


def save_model(model: nn.Module, path: Path, **card: Any) -> None:
    """Write a classifier to a `.safetensors` file, complete or not at all.

    `card` is kept in the header beside the architecture: classes, image size, preprocessing,
    whatever JSON can hold that a later reader needs.
    """
    classifier = unwrapped(model)
    if not isinstance(classifier, Classifier):
        raise TypeError(f"only a Classifier can be saved, not {type(classifier).__name__}")
    header = {"format": FORMAT, "version": __version__, "model": classifier.spec.to_dict(), **card}
    tensors = {k: v.detach().cpu().contiguous() for k, v in classifier.state_dict().items()}
    with replacing(path) as temporary:
        save_file(tensors, temporary, metadata={"diascope": json.dumps(header)})


def read_card(path: Path) -> dict[str, Any]:
    """Return the JSON header of a run folder or `.safetensors` file without reading weights."""
    return read_own(path, weights=False)[0]


def load_model(path: Path | str) -> Classifier:
    """Open a run folder or a `.safetensors` file as a classifier in eval mode.

    Its `card` attribute holds the header. Raises `UserError` where the file is missing, damaged,
    or not one of ours.
    """
    path = Path(path)
    card, tensors = read_own(path, weights=True)
    try:
        spec = ModelSpec(
            **{**card["model"], **{name: tuple(card["model"][name]) for name in ("mean", "std")}}
        )
    except (KeyError, TypeError) as error:
        raise UserError(f"{path}: its header does not tell its architecture ({error})") from None
    model = create_model(
        spec.name,
        spec.num_classes,
        attention=spec.attention,
        in_chans=spec.in_chans,
        **spec.options,
    )
    model.spec = spec
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(f"{path}: the weights do not fit {spec.name}: {reason}") from None
    model.card = card
    return model.eval()
