"""Weights whose tensors are called otherwise than the backbone calls them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

_TOP = {
    "_conv_stem": "conv_stem",
    "_bn0": "bn1",
    "_conv_head": "conv_head",
    "_bn1": "bn2",
    "_fc": "classifier",
}
_SQUEEZE = {"_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
_PLAIN = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
_INVERTED = {
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_depthwise_conv": "conv_dw",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}


def renamed(state: Mapping[str, Tensor], backbone: nn.Module) -> list[dict[str, Tensor]]:
    """Return the readings of `state` in the backbone's names: as it is, then the others known.

    The others: EfficientNets of the package `efficientnet_pytorch` and its kin, and timm's own
    conversion of the files that the backbone's authors published.
    """
    readings = [dict(state)]
    if "_conv_stem.weight" in state:
        readings.append(_efficientnet(state, backbone))
    convert: Any = getattr(sys.modules[type(backbone).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            converted = convert(dict(state), backbone)
        except Exception:  # it was written for other files than this, and fails as it may
            converted = None
        if isinstance(converted, Mapping):
            readings.append(dict(converted))
    return readings


def _efficientnet(state: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor]:
    """Return a state of `efficientnet_pytorch`, blocks numbered through, in timm's names."""
    stages = list(getattr(backbone, "blocks", []))
    places = [f"{i}.{j}" for i, stage in enumerate(stages) for j in range(len(stage))]
    out = {}
    for key, value in state.items():
        block = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", key)
        if block is None:
            layer, _, leaf = key.partition(".")
            out[f"{_TOP.get(layer, layer)}.{leaf}"] = value
            continue
        number, layer, leaf = int(block[1]), block[2], block[3]
        inverted = f"_blocks.{number}._expand_conv.weight" in state
        names = {**(_INVERTED if inverted else _PLAIN), **_SQUEEZE}
        place = places[number] if number < len(places) else f"?{number}"
        out[f"blocks.{place}.{names.get(layer, layer)}.{leaf}"] = value
    return out
