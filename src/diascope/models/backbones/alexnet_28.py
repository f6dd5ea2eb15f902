"""AlexNet for images of 28x28."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diascope.models.backbones.base import backbones

SMALLEST = 28


@backbones.register("alexnet-28")
class AlexNet28(nn.Module):
    """AlexNet (Krizhevsky et al. 2012) with strides for 28x28: images (B, C, H, W) to logits.

    P4 names AlexNet for MNIST and says no more, so these layers are ours: the widths of the net
    in one column (Krizhevsky 2014), with a first convolution of 5x5, stride 1 (for 11x11,
    stride 4), and no local response normalisation.

    | layer | kernel | output at 28x28 |
    |---|---|---|
    | conv1, ReLU | 5x5, padding 2 | 64 x 28 x 28 |
    | max-pool | 3x3, stride 2 | 64 x 13 x 13 |
    | conv2, ReLU | 5x5, padding 2 | 192 x 13 x 13 |
    | max-pool | 3x3, stride 2 | 192 x 6 x 6 |
    | conv3, ReLU | 3x3, padding 1 | 384 x 6 x 6 |
    | conv4, ReLU | 3x3, padding 1 | 256 x 6 x 6 |
    | conv5, ReLU | 3x3, padding 1 | 256 x 6 x 6 |
    | max-pool | 3x3, stride 2 | 256 x 2 x 2 |
    | average to 2x2 | (nothing at 28x28) | 1024 |
    | dropout, fc6, ReLU | | 4096 |
    | dropout, fc7, ReLU | | 4096 |
    | fc8 | | K |

    `width` multiplies the channels and the 4096; `drop_rate` is that of both dropouts. Weights
    are drawn after He et al. 2015, biases are 0: from torch's own draw SGD at P4's learning rate
    of 1e-2 does not leave the loss of chance for over a hundred steps. Images are normalised with
    mean and std 0.5, to [-1, 1], whatever they show. Raises `ValueError` for images under 28
    pixels a side.
    """

    pretrained_cfg: ClassVar[Mapping[str, Any]] = MappingProxyType(
        {
            "input_size": (1, 28, 28),
            "mean": (0.5,),
            "std": (0.5,),
            "first_conv": "conv1",
            "classifier": "fc8",
        }
    )

    def __init__(
        self, num_classes: int, in_chans: int = 1, *, width: float = 1.0, drop_rate: float = 0.5
    ) -> None:
        super().__init__()
        a, b, c, d, hidden = (max(1, round(width * n)) for n in (64, 192, 384, 256, 4096))
        self.num_features = d
        self.conv1 = nn.Conv2d(in_chans, a, 5, padding=2)
        self.conv2 = nn.Conv2d(a, b, 5, padding=2)
        self.conv3 = nn.Conv2d(b, c, 3, padding=1)
        self.conv4 = nn.Conv2d(c, d, 3, padding=1)
        self.conv5 = nn.Conv2d(d, d, 3, padding=1)
        self.relu, self.pool = nn.ReLU(), nn.MaxPool2d(3, 2)
        self.average, self.drop = nn.AdaptiveAvgPool2d(2), nn.Dropout(drop_rate)
        self.fc6 = nn.Linear(4 * d, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, num_classes)
        self.apply(_initialise)

    def forward_features(self, x: Tensor) -> Tensor:
        """Return the last feature map, (B, 256, 2, 2) at 28x28."""
        if min(x.shape[2:]) < SMALLEST:
            raise ValueError(f"alexnet-28 takes images from {SMALLEST}x{SMALLEST} up")
        x = self.pool(self.relu(self.conv1(x)))
        x = self.pool(self.relu(self.conv2(x)))
        x = self.relu(self.conv3(x))
        x = self.relu(self.conv4(x))
        return self.pool(self.relu(self.conv5(x)))  # type: ignore[no-any-return]

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits (B, K)."""
        x = self.average(self.forward_features(x)).flatten(1)
        x = self.relu(self.fc6(self.drop(x)))
        x = self.relu(self.fc7(self.drop(x)))
        return self.fc8(x)  # type: ignore[no-any-return]

    def get_classifier(self) -> nn.Module:
        """Return the last layer."""
        return self.fc8

    def group_matcher(self, coarse: bool = False) -> Mapping[str, Any]:
        """Return the stages: the convolutions one by one, then the two hidden layers."""
        return {"convolutions": r"^conv(\d)", "hidden": r"^fc([67])"}


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        assert module.bias is not None
        with torch.no_grad():
            module.bias.zero_()
