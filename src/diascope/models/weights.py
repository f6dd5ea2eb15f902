"""Weights to start from: a file, and how it fits a backbone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.models import adapt_input_conv
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.models.attention import AttentiveBackbone
from diascope.models.namings import renamed
from diascope.models.stored import is_own, read_foreign, read_own


@dataclass(frozen=True)
class Weights:
    """A backbone's state, where it is from, and our header if it is one of our models."""

    file: Path
    state: Mapping[str, Tensor]
    spec: Mapping[str, Any] | None = None


def read_weights(path: Path | str) -> Weights:
    """Read weights to start from: of a run folder or a classifier that was saved here, or foreign.

    Raises `UserError` where the file cannot be read, or holds no weights.
    """
    path = Path(path).expanduser()
    if not is_own(path):
        return Weights(path, read_foreign(path))
    card, tensors = read_own(path, weights=True)
    prefix = "backbone."
    state = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return Weights(path, state, card["model"])


def check_architecture(
    weights: Weights, name: str, attention: str | None, options: Mapping[str, Any]
) -> None:
    """Raise `UserError` where one of our models is of another architecture than is asked for.

    Drop rates may differ, and attention may be new where the trained model had none.
    """
    if weights.spec is None:
        return
    spec, wanted = weights.spec, {"name": name, "attention": attention}
    for key, value in wanted.items():
        if spec[key] != value and not (key == "attention" and spec[key] is None):
            had, asked = spec[key] or "null", value or "null"
            raise UserError(f"{weights.file}: holds a model of {key} {had}, not {asked}")
    before, now = (
        {k: v for k, v in given.items() if not k.startswith("drop")}
        for given in (spec["options"], options)
    )
    if before != now:
        raise UserError(f"{weights.file}: holds a model of options {before}, not {now}")


def start_from(backbone: nn.Module, weights: Weights, name: str, in_chans: int) -> tuple[str, ...]:
    """Load weights into a backbone, and return the names of the parameters left as they were.

    The classifying layer is left fresh where the weights have none or one of other classes; the
    first convolution is adapted to other input channels as timm does (summed over channels for
    one). Raises `UserError` where anything else is missing, too much, or of another shape.
    """
    inside = {id(p) for p in classifier_parameters(backbone)}
    head = [key for key, p in backbone.named_parameters() if id(p) in inside]
    own = {key: tensor.shape for key, tensor in backbone.state_dict().items()}
    readings = [
        _adapted(state, own, _first_convolutions(backbone), in_chans, head)
        for state in renamed(weights.state, backbone)
    ]
    misfits = [_misfit(state, own, head) for state in readings]
    if all(misfits):
        raise UserError(f"{weights.file}: the weights do not fit {name}: {misfits[0]}")
    state = readings[misfits.index("")]
    backbone.load_state_dict(state, strict=False)
    return tuple(key for key in head if key not in state)


def classifier_parameters(backbone: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of the layer, or layers, that give a backbone's logits."""
    get_classifier: Any = getattr(backbone, "get_classifier", None)
    found = () if get_classifier is None else get_classifier()
    layers: Iterable[Any] = found if isinstance(found, tuple | list) else (found,)
    return [p for layer in layers if isinstance(layer, nn.Module) for p in layer.parameters()]


def _adapted(
    state: dict[str, Tensor],
    own: Mapping[str, Any],
    stems: list[str],
    in_chans: int,
    head: list[str],
) -> dict[str, Tensor]:
    for key in stems:
        if key in state and key in own and state[key].shape != own[key]:
            try:
                state[key] = adapt_input_conv(in_chans, state[key])
            except NotImplementedError:
                continue  # the shapes will be found not to fit
    if any(key not in state or state[key].shape != own[key] for key in head):
        for key in head:
            state.pop(key, None)
    return state


def _misfit(state: Mapping[str, Tensor], own: Mapping[str, Any], head: list[str]) -> str:
    """Say what does not fit, in one line; empty where all does."""
    counted = ".num_batches_tracked"  # which old files do not have
    missing = [k for k in own if k not in state and k not in head and not k.endswith(counted)]
    extra = [k for k in state if k not in own]
    other = [k for k in state if k in own and state[k].shape != own[k]]
    if not (missing or extra or other):
        return ""
    if other:
        key = other[0]
        return f"'{key}' is {tuple(state[key].shape)}, not {tuple(own[key])}" + _more(other)
    found = [f"'{missing[0]}' is missing{_more(missing)}"] if missing else []
    found += [f"'{extra[0]}' is not among its tensors{_more(extra)}"] if extra else []
    return ", ".join(found)


def _more(keys: list[str]) -> str:
    return f" (and {len(keys) - 1} more)" if len(keys) > 1 else ""


def _first_convolutions(backbone: nn.Module) -> list[str]:
    prefix, body = "", backbone
    if isinstance(backbone, AttentiveBackbone):
        prefix, body = "features.body.", backbone.features.body
    stems: Any = getattr(body, "pretrained_cfg", {}).get("first_conv") or ()
    return [f"{prefix}{stem}.weight" for stem in ([stems] if isinstance(stems, str) else stems)]
