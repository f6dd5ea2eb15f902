"""Nets for oracle tests, which a few seconds of training on digits make fairly robust."""

from __future__ import annotations

from functools import cache

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from diascope.attacks import FGSM


@cache
def digits(classes: int = 10, *, robust: bool = True) -> tuple[nn.Module, Tensor, Tensor]:
    """Return a net, and the images (1, 8, 8) that it was not trained on, and their labels.

    `robust`: trained on FGSM images. Of all ten classes 399 images are held out.
    """
    bunch = load_digits()
    x = torch.tensor(bunch.images, dtype=torch.float32)[:, None] / 16
    y = torch.tensor(bunch.target)
    kept = y < classes
    x, y = x[kept], y[kept]
    attack = FGSM(norm="linf", eps=0.1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(512, classes),
        )
        order = torch.randperm(len(x))
        held = len(x) * 2 // 9
        test, train = order[:held], order[held:]
        optimizer = torch.optim.Adam(net.parameters(), 3e-3)
        for _ in range(8 if robust else 4):
            for rows in train[torch.randperm(len(train))].split(64):
                x_adv = attack(net, x[rows], y[rows]) if robust else x[rows]
                loss = nn.functional.cross_entropy(net(x_adv), y[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
    return net.eval().requires_grad_(False), x[test], y[test]
