"""Nets, epsilons and an attack for the tests of the robustness curve."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tests.nets import small_net
from torch import nn

from diascope.attacks import at_eps
from diascope.attacks.base import verdict

GRID = [0.02, 0.04, 0.06, 0.08, 0.1, 0.12]  # breaks most of both nets


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def standard():
    return small_net(seed=5).double()


def robust():
    """A net that sees the image blurred: small changes reach it weakened."""
    return nn.Sequential(nn.AvgPool2d(4, stride=1), small_net(seed=5)).double()


def counted(model):
    """Return a list to which every forward of the model, or of a copy of it, adds its images."""
    seen = []
    model.register_forward_hook(lambda module, inputs, output: seen.append(len(inputs[0])))
    return seen


@dataclass(frozen=True, kw_only=True)
class Pushing:
    """Adds a size to every pixel: of `sizes`, the last whose epsilon is not above its own."""

    norm: str = "linf"
    eps: float | torch.Tensor = 0.1
    sizes: tuple[tuple[float, float], ...] = ()

    def __call__(self, model, x, y, *, generator=None, ids=None):
        eps = torch.as_tensor(self.eps, dtype=x.dtype).expand(len(x))
        size = torch.zeros_like(eps)
        for least, value in self.sizes:
            size = torch.where(eps >= least, value, size)
        return x + size.view(-1, 1, 1, 1)


def independently_broken(model, x, y, attack, epsilons, seed=0):
    """Whether attacking all images at each epsilon alone breaks them, (N, E)."""
    broken = []
    for eps in epsilons:
        x_adv = at_eps(attack, eps)(model, x, y, generator=seeded(seed), ids=torch.arange(len(x)))
        broken.append(verdict(model, x_adv, y, targeted=attack.targeted))
    return torch.stack(broken, 1)


class Shells(nn.Module):
    """Wrong where the farthest pixel is 0.05 to 0.15 from 0.5, and from 0.25 on."""

    def forward(self, x):
        far = (x - 0.5).abs().flatten(1).amax(1, keepdim=True)
        inside = (far - 0.05) * (far - 0.15) * (0.25 - far)
        return torch.cat([inside, -inside], 1)
