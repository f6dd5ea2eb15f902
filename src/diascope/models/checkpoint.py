"""Classifiers on disk: weights in safetensors, everything else in its JSON header."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from diascope import __version__
from diascope.errors import UserError
from diascope.files import replacing
from diascope.models.create import Classifier, ModelSpec, create_model
from diascope.models.modes import unwrapped

WEIGHTS = "model.safetensors"
FORMAT = "diascope-classifier-1"


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
    return _read(path, weights=False)[0]


def load_model(path: Path | str) -> Classifier:
    """Open a run folder or a `.safetensors` file as a classifier in eval mode.

    Its `card` attribute holds the header. Raises `UserError` where the file is missing, damaged,
    or not one of ours.
    """
    path = Path(path)
    card, tensors = _read(path, weights=True)
    spec = dict(card["model"])
    mean, std = tuple(spec.pop("mean")), tuple(spec.pop("std"))
    model = create_model(
        spec["name"],
        spec["num_classes"],
        attention=spec["attention"],
        in_chans=spec["in_chans"],
        **spec["options"],
    )
    model.spec = ModelSpec(**spec, mean=mean, std=std)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise UserError(f"{path}: the weights do not fit {spec['name']}: {reason}") from None
    model.card = card
    return model.eval()


def _read(path: Path, weights: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
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
    card: dict[str, Any] = json.loads(metadata["diascope"])
    if card.get("format") != FORMAT:
        raise UserError(f"{file}: written in format {card.get('format')}; this reads {FORMAT}")
    return card, tensors
