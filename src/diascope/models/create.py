"""Classifiers: a timm backbone behind its own normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import timm
from torch import Tensor, nn

from diascope.errors import UserError, nearest
from diascope.models.normalise import Normalise


@dataclass(frozen=True)
class ModelSpec:
    """Everything needed to build a classifier's architecture again."""

    name: str
    num_classes: int
    in_chans: int = 3
    attention: str | None = None
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    options: Mapping[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Return the specification as plain JSON values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}


class Classifier(nn.Module):
    """Images in [0, 1], (B, C, H, W), to logits (B, K): normalisation, then the backbone."""

    def __init__(self, spec: ModelSpec, backbone: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.card: dict[str, Any] = {}
        self.normalise = Normalise(spec.mean, spec.std)
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W)."""
        return self.backbone(self.normalise(x))  # type: ignore[no-any-return]


def create_model(
    name: str,
    num_classes: int,
    pretrained: bool = False,
    attention: str | None = None,
    in_chans: int = 3,
    **options: Any,
) -> Classifier:
    """Build a classifier from any timm name, with normalisation inside.

    `in_chans` is 3 for colour, 1 for grey-scale images (timm sums pretrained first-layer weights
    over the channels). `pretrained` takes timm's weights, from its hub or local cache. `options`
    go to timm, such as `layers=[1, 1, 1, 1]` or `drop_rate=0.2`.

    Raises `UserError` for a name timm does not have, options it does not take, and weights that
    cannot be had.
    """
    if attention is not None:
        raise UserError(f"attention='{attention}': no attention block is built in yet; use null")
    if not timm.is_model(name):
        raise UserError(
            f"model '{name}': timm has no such model; {nearest(name, timm.list_models())}"
        )
    if num_classes < 1:
        raise UserError(f"model '{name}': num_classes is {num_classes}; at least 1 is needed")
    if reserved := {"num_classes", "in_chans", "pretrained"} & set(options):
        raise UserError(f"model '{name}': options cannot hold '{min(reserved)}'; it is set apart")
    try:
        backbone = timm.create_model(
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
            "set pretrained to false, or give a file with pretrained_cfg_overlay"
        ) from None
    mean, std = _statistics(backbone, in_chans)
    spec = ModelSpec(name, num_classes, in_chans, attention, mean, std, dict(options))
    return Classifier(spec, backbone)


def _statistics(backbone: nn.Module, in_chans: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and std the weights were trained with, averaged for one channel."""
    cfg = getattr(backbone, "pretrained_cfg", {})
    mean, std = tuple(cfg.get("mean", ModelSpec.mean)), tuple(cfg.get("std", ModelSpec.std))
    if len(mean) == in_chans:
        return mean, std
    return (sum(mean) / len(mean),) * in_chans, (sum(std) / len(std),) * in_chans
