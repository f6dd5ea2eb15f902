"""What a module's own structure tells of its input, without any image."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from diascope.models.black_box import BlackBox
from diascope.models.inputs import Scaling
from diascope.models.sealed import Sealed

_NORMALISER = re.compile(r"normali[sz]", re.IGNORECASE)
_POSITIONS = re.compile(r"pos(ition)?_?embed", re.IGNORECASE)
_XRAYS = "torchxrayvision."


@dataclass(frozen=True)
class Hints:
    """What can be read off a module; None where it does not say.

    scaling: what its library is known to feed it. candidates: scalings that its configuration
    names. classes: the names of its outputs.
    """

    channels: int | None = None
    size: int | None = None
    scaling: Scaling | None = None
    candidates: tuple[Scaling, ...] = ()
    classes: tuple[str, ...] = ()
    statements: tuple[str, ...] = field(default=())


def hints_of(model: nn.Module) -> Hints:
    """Return what a module tells of its input."""
    if isinstance(model, BlackBox | Sealed):
        return Hints()
    if type(model).__module__.startswith(_XRAYS):
        size = 512 if type(model).__name__ == "ResNet" else 224
        told = "a torchxrayvision model: grey images in [-1024, 1024], as that library has them"
        return Hints(1, size, Scaling(-1024.0, 1024.0), statements=(told,))
    config: Any = getattr(model, "config", None)
    return Hints(
        _channels(model, config), _size(model, config), None, _configured(model), _classes(config)
    )


def _channels(model: nn.Module, config: Any) -> int | None:
    stem = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    found = stem.in_channels if stem is not None else getattr(config, "num_channels", None)
    return found if found in (1, 3) else None


def _size(model: nn.Module, config: Any) -> int | None:
    for owner in (config, model):
        for name in ("image_size", "img_size"):
            found = getattr(owner, name, None)
            found = found[-1] if isinstance(found, tuple | list) and found else found
            if isinstance(found, int) and not isinstance(found, bool):
                return found
    cfg = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if isinstance(cfg, dict) and cfg.get("input_size"):
        return int(cfg["input_size"][-1])
    return _of_positions(model)


def _of_positions(model: nn.Module) -> int | None:
    """Return the side that a square grid of position embeddings covers, by the first stride."""
    stem = next((m for m in model.modules() if isinstance(m, nn.Conv2d)), None)
    for name, parameter in model.named_parameters():
        if stem is None or not _POSITIONS.search(name) or parameter.ndim not in (2, 3):
            continue
        tokens = parameter.shape[-2]
        for places in (tokens, tokens - 1):
            side = math.isqrt(places)
            if side > 1 and side * side == places:
                return side * int(stem.stride[-1])
    return None


def _configured(model: nn.Module) -> tuple[Scaling, ...]:
    """Return the normalisation that a timm model's configuration names."""
    cfg = getattr(model, "pretrained_cfg", None) or getattr(model, "default_cfg", None)
    if not isinstance(cfg, dict) or "mean" not in cfg or "std" not in cfg:
        return ()
    return (Scaling(mean=tuple(cfg["mean"]), std=tuple(cfg["std"])),)


def _classes(config: Any) -> tuple[str, ...]:
    """Return the labels of a Hugging Face configuration, unless they are only numbered."""
    labels = getattr(config, "id2label", None)
    if not isinstance(labels, dict) or not labels:
        return ()
    names = tuple(str(labels[key]) for key in sorted(labels))
    return () if all(name.startswith("LABEL_") for name in names) else names


@torch.no_grad()
def normalisers(model: nn.Module, x: Tensor) -> list[str]:
    """Return the names of the modules that normalise images (B, C, H, W) before the first weights.

    Modules called so (`Normalize`, `normalise`), or that hold a mean and a std of the channels;
    and batch-norms of the image itself.
    """
    order: list[tuple[str, nn.Module]] = []
    handles = []
    try:
        for name, module in _leaves(model):

            def seen(module: nn.Module, args: Any, out: Any, name: str = name) -> None:
                order.append((name, module))

            handles.append(module.register_forward_hook(seen))
        model(x)
    except Exception:  # the caller has run it already, and knows how it fails
        return []
    finally:
        for handle in handles:
            handle.remove()
    found = []
    for name, module in order:
        if any(p.ndim > 1 for p in module.parameters()):
            break
        if _normalises(name, module, x.shape[1]):
            found.append(name or type(module).__name__)
    return found


def _leaves(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    for name, module in model.named_modules():
        plain = not isinstance(module, torch.jit.ScriptModule | BlackBox | Sealed)
        if plain and not any(True for _ in module.children()):
            yield name, module


def _normalises(name: str, module: nn.Module, channels: int) -> bool:
    if isinstance(module, nn.BatchNorm2d):
        return module.num_features == channels
    if _NORMALISER.search(type(module).__name__) or _NORMALISER.search(name.rpartition(".")[2]):
        return True
    buffers = {key for key, value in module.named_buffers() if value.numel() in (1, channels)}
    return bool(buffers & {"mean", "pixel_mean"}) and bool(buffers & {"std", "pixel_std"})
