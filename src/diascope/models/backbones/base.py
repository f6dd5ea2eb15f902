"""What a backbone is: the part of timm's models that is used here."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

from torch import Tensor, nn

from diascope.registry import Registry

backbones = Registry("backbone", "diascope.models.backbones")


@runtime_checkable
class Backbone(Protocol):
    """An `nn.Module` built from (num_classes, in_chans, options): (B, C, H, W) to logits (B, K).

    pretrained_cfg: `input_size` (C, H, W), `mean` and `std` of its normalisation, and the names
    of its `first_conv` and `classifier`, as in timm.
    """

    pretrained_cfg: ClassVar[Mapping[str, Any]]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, (B, C', h, w)."""
        ...

    def get_classifier(self) -> nn.Module:
        """Return the layer that gives the logits."""
        ...

    def group_matcher(self, coarse: bool = False) -> Mapping[str, Any]:
        """Return the stages from the input on, a pattern of parameter names each."""
        ...
