"""Soft attention over the last feature map (P2, after Datta et al. 2021), and its controls."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diascope.errors import UserError, nearest
from diascope.models.features import FeatureMap, feature_map
from diascope.models.modes import exactly, unwrapped

HEADS, GAMMA, DROPOUT = 16, 0.01, 0.5
KINDS = ("soft", "control", "plain")
ATTENTION = tuple(f"{kind}{end}" for kind in KINDS for end in ("", "-flatten"))


class SoftAttention(nn.Module):
    """Weigh the places of a map: t (B, C, H, W) -> u = gamma * A * t, of the same shape.

    A (B, 1, H, W) is the sum of `heads` softmaxes over the H*W places, each of the ReLU of one
    channel of a 3x3 convolution C -> heads with bias; it sums to `heads`. gamma is learnt and
    begins at 0.01 (Datta et al. 2021, section 3). The Keras layer published with that paper has
    the axes of its kernel in another order and so reads the first three channels only; this one
    reads all C. Cost: 9 * C * heads + heads + 1 parameters.
    """

    def __init__(self, channels: int, heads: int = HEADS) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, heads, 3, padding=1)
        self.gamma = nn.Parameter(torch.tensor(GAMMA))

    def map(self, t: Tensor) -> Tensor:
        """Return A (B, 1, H, W), at least 0, summing to `heads` in each image."""
        scores: Tensor = self.conv(t).relu()
        return scores.flatten(2).softmax(2).view_as(scores).sum(1, keepdim=True)

    def forward(self, t: Tensor) -> Tensor:
        """Return the attended map u."""
        return self.gamma * (self.map(t) * t)


class EvenAttention(nn.Module):
    """The control of `SoftAttention`: A is the same at every place, and sums to `heads` too."""

    def __init__(self, heads: int = HEADS) -> None:
        super().__init__()
        self.heads = heads
        self.gamma = nn.Parameter(torch.tensor(GAMMA))

    def forward(self, t: Tensor) -> Tensor:
        """Return u = gamma * heads / (H * W) * t."""
        return self.gamma * (self.heads / (t.shape[2] * t.shape[3]) * t)


class AttentiveHead(nn.Module):
    """From a feature map (B, C, H, W) to logits (B, K), by `kind` (see `attentive`).

    With attention: 2x2 max-pools of u and t ("same" padding, so that 7x7 gives 4x4) side by side,
    ReLU, dropout 0.5, the mean over places or all places flattened, and a linear layer (P2,
    section 3.3). Without, "plain": ReLU, dropout and the rest on t itself. `places` is the size
    of the map that is flattened, to which maps of another size are averaged; None for the mean.
    """

    def __init__(
        self, channels: int, num_classes: int, kind: str, places: tuple[int, int] | None
    ) -> None:
        super().__init__()
        self.attention: nn.Module | None = None
        if kind != "plain":
            self.attention = SoftAttention(channels) if kind == "soft" else EvenAttention()
            self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
            channels *= 2
            places = places and ((places[0] + 1) // 2, (places[1] + 1) // 2)
        self.relu, self.drop = nn.ReLU(), nn.Dropout(DROPOUT)
        self.gather = nn.Sequential(nn.AdaptiveAvgPool2d(places or 1), nn.Flatten())
        count = places[0] * places[1] if places else 1
        self.linear = nn.Linear(channels * count, num_classes)

    def forward(self, t: Tensor) -> Tensor:
        """Return the logits."""
        if self.attention is not None:
            t = torch.cat([self.pool(self.attention(t)), self.pool(t)], 1)
        return self.linear(self.gather(self.drop(self.relu(t))))  # type: ignore[no-any-return]


class AttentiveBackbone(nn.Module):
    """A backbone's feature map, and an `AttentiveHead` in place of its own head."""

    def __init__(self, features: FeatureMap, head: AttentiveHead) -> None:
        super().__init__()
        self.features = features
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K) of normalised images (B, C, H, W)."""
        return self.head(self.features(x))  # type: ignore[no-any-return]

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the feature map before the head, (B, C', h, w)."""
        return self.features(x)  # type: ignore[no-any-return]

    def get_classifier(self) -> nn.Module:
        """Return the layer that gives the logits."""
        return self.head.linear


def check_attention(attention: str | None) -> None:
    """Raise `UserError` for a name that `attentive` does not know."""
    if attention is not None and attention not in ATTENTION:
        raise UserError(f"attention='{attention}': {nearest(attention, ATTENTION)} null: none")


def attentive(
    backbone: nn.Module, name: str, num_classes: int, attention: str, sample: Tensor
) -> AttentiveBackbone:
    """Put an attentive head in the place of a backbone's own, whose layers go with it.

    attention: "soft"; "control", the same head with an attention that is the same everywhere;
    "plain", the same ReLU, dropout and linear layer on the map alone. Each averages over places;
    with "-flatten" the places are kept apart, as in P2's InceptionResNetV2 (whose plain net is
    "plain-flatten"; its plain ResNet-50 is the backbone as it is, attention null). The map is the
    one the backbone pools, but for InceptionResNetV2 that after its second-last block.
    `sample` (1, C, H, W) has the size of the images to come. Raises `UserError` for a backbone
    that gives no map.
    """
    features = feature_map(backbone, name, sample)
    with exactly(features), torch.no_grad():
        _, channels, height, width = features(sample).shape
    kind, _, flat = attention.partition("-")
    places = (height, width) if flat else None
    return AttentiveBackbone(features, AttentiveHead(channels, num_classes, kind, places))


def attention_of(model: nn.Module) -> SoftAttention:
    """Return a model's soft attention; `UserError` for a model without it."""
    inner: Any = unwrapped(model)
    backbone = getattr(inner, "backbone", inner)
    attention = backbone.head.attention if isinstance(backbone, AttentiveBackbone) else None
    if not isinstance(attention, SoftAttention):
        raise UserError("this model has no attention map; build it with attention='soft'")
    return attention


@torch.no_grad()
def attention_map(model: nn.Module, x: Tensor) -> Tensor:
    """Return where a model with soft attention attends: images (B, C, H, W) -> A (B, 1, h, w).

    Each map is at least 0 and sums to 16, the number of heads. The model is run in eval mode and
    in float32, behind Fabric's and DDP's wrappers too. Raises `UserError` for a model without
    soft attention. Cost: one forward.
    """
    inner: Any = unwrapped(model)
    backbone = getattr(inner, "backbone", inner)
    attention = attention_of(inner)
    with exactly(inner):
        return attention.map(backbone.features(inner.normalise(x) if inner is not backbone else x))
