"""A classifier: its specification, and the backbone behind its own normalisation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor, nn

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
    """Images in [0, 1], (B, C, H, W), to logits (B, K): normalisation, then the backbone.

    spec: what it was built from. card: the header of the file it was loaded from. fresh: the
    names of the parameters that the weights it was started from did not give; empty where it was
    started from none.
    """

    def __init__(self, spec: ModelSpec, backbone: nn.Module, fresh: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.spec = spec
        self.card: dict[str, Any] = {}
        self.fresh = fresh
        self.normalise = Normalise(spec.mean, spec.std)
        self.backbone = backbone

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of images (B, C, H, W)."""
        return self.backbone(self.normalise(x))  # type: ignore[no-any-return]
