"""Small nets for tests, with known behaviour."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Linear(nn.Module):
    """Logits (B, K) that are linear in the pixels: the best attack on them is known."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)  # (K, C, H, W)
        self.bias = nn.Parameter(torch.zeros(len(weight)) if bias is None else bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bchw,kchw->bk", x, self.weight) + self.bias


def small_net(
    classes: int = 3, channels: int = 3, seed: int = 0, dropout: float = 0.0
) -> nn.Sequential:
    """A convolutional net with batch-norm and dropout, weights drawn by `seed`."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(2),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(32, classes),
        )
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
    return net.eval()


def images(count: int, side: int = 16, channels: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, channels, side, side, generator=generator)


def balanced_net(classes: int = 3, seed: int = 0) -> nn.Sequential:
    """A small net that predicts every class about equally often on `images`."""
    net = small_net(classes, seed=seed)
    with torch.no_grad():
        logits = net(images(512, seed=99))
        head = net[-1]
        head.weight.div_(logits.std(0)[:, None])
        head.bias.copy_((head.bias - logits.mean(0)) / logits.std(0))
    return net
