"""Opening a classifier by its address, and its card."""

from __future__ import annotations

from typing import Any

from torch import nn

from diascope.models.opening import open_classifier


def open_model(address: str) -> tuple[nn.Module, dict[str, Any]]:
    """Open a classifier and its card, whatever is known of classes, size and preprocessing.

    `address` is a run folder or a `.safetensors` file that Diascope saved; `NAME:FILE`, a name
    that `create_model` knows and its weights (see there), behind timm's own mean and std; a
    TorchScript, ExportedProgram or ONNX file; or `package.module:thing`, an `nn.Module`, what is
    called without arguments for one, or a function from images to scores or labels. See
    `diascope.models.opening`. Raises `UserError` where it cannot be opened.
    """
    opened = open_classifier(address)
    return opened.model, opened.card
