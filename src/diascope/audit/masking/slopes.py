"""Gradients as they are, and the differences that they should foretell."""

from __future__ import annotations

import copy
from typing import NamedTuple

import torch
from torch import Tensor, nn

from diascope.attacks.base import LossFunction
from diascope.models.modes import exactly


class Slope(NamedTuple):
    """The loss of each image (B,) and its gradient (B, C, H, W), whatever values they hold.

    cut: autograd sees no way from the image to the loss; the gradient is then zero.
    """

    value: Tensor
    gradient: Tensor
    cut: bool


def slope(
    model: nn.Module, x: Tensor, y: Tensor, loss: LossFunction, batch_size: int = 64
) -> Slope:
    """Return loss and gradient of images (N, C, H, W), in eval mode, nothing replaced in them."""
    values, gradients, cut = [], [], False
    with torch.enable_grad(), exactly(model) as inner:
        for xs, ys in zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True):
            xs = xs.detach().clone().requires_grad_(True)
            value = loss(inner(xs), ys)
            gradient = None
            if value.requires_grad:
                (gradient,) = torch.autograd.grad(value.sum(), xs, allow_unused=True)
            cut = cut or gradient is None
            gradients.append(torch.zeros_like(xs) if gradient is None else gradient.detach())
            values.append(value.detach())
    return Slope(torch.cat(values), torch.cat(gradients), cut)


def in_double(model: nn.Module, x: Tensor) -> nn.Module | None:
    """Return a float64 copy of the model that takes images like x; None where there can be none."""
    try:
        double = copy.deepcopy(model).double()
        with torch.no_grad(), exactly(double) as inner:
            fits = inner(x[:1].double()).dtype == torch.float64
    except (Exception, SystemExit):  # a module of the user's may refuse in any way
        return None
    return double if fits else None


def difference(
    model: nn.Module, x: Tensor, y: Tensor, loss: LossFunction, step: Tensor, seed: int
) -> Tensor:
    """Return the central difference of the loss along `step` (B, C, H, W): half of f(+) - f(-).

    Both sides are asked with the same random numbers, so that of a stochastic model it is the
    difference at one draw. (B,), in units of the loss.
    """
    sides = []
    devices = [x.device] if x.device.type == "cuda" else []
    with torch.no_grad(), exactly(model) as inner:
        for sign in (1, -1):
            with torch.random.fork_rng(devices):
                torch.manual_seed(seed)
                sides.append(loss(inner(x + sign * step), y))
    return (sides[0] - sides[1]) / 2


def unit(vector: Tensor) -> Tensor:
    """Return vectors (B, C, H, W) of length 1; a zero vector stays zero."""
    length: Tensor = torch.linalg.vector_norm(vector.flatten(1), dim=1)
    length = length.view(-1, 1, 1, 1)
    return vector / length.clamp_min(torch.finfo(vector.dtype).tiny)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of the angle between vectors (B, C, H, W), (B,); 0 where one is zero."""
    return (unit(a.double()) * unit(b.double())).flatten(1).sum(1)
