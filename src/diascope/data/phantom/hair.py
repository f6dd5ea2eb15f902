"""Hairs that lie over skin and lesion."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.data.phantom.dice import TURN, Dice, pixel_grid, wide

DARK = torch.tensor([0.16, 0.10, 0.08])
FAIR = torch.tensor([0.86, 0.74, 0.60])
MOST = 14
FAINT = 0.2  # a pixel that a hair covers less than this is left as it is


def draw_hair(light: Tensor, view: Dice) -> tuple[Tensor, Tensor]:
    """Return `light` (B, 3, H, W) with hairs, and the pixels that they touch (B, H, W) bool.

    Half of the images have none; few have many.
    """
    size = light.shape[-1]
    hairy = view.happens("hairy", 0.5)
    count = torch.where(hairy, 1 + view.between("hairs", 0, 1) ** 2.2 * MOST, 0.0).long()
    fair = view.happens("fair", 0.22)
    comb = view.between("comb", 0, TURN)
    cover = torch.zeros(len(light), size, size)
    for number in range(MOST):
        rows = (count > number).nonzero().squeeze(1)
        if len(rows):
            stroke = _stroke(view.take(rows), comb[rows], number, size)
            cover[rows] = torch.maximum(cover[rows], stroke)
    mask = cover >= FAINT
    shade = torch.where(fair[:, None], FAIR, DARK) * view.between("shade", 0.7, 1.15)[:, None]
    opacity = torch.where(mask, cover * wide(view.between("opaque", 0.75, 0.97)), 0.0)
    return torch.lerp(light, shade[..., None, None].expand_as(light), opacity[:, None]), mask


def _stroke(view: Dice, comb: Tensor, number: int, size: int) -> Tensor:
    """Return how much of each pixel the hair covers (B, H, W): an arc that thins at its ends."""

    def draw(what: str, low: float, high: float) -> Tensor:
        return view.between(f"hair-{number}-{what}", low, high)

    angle = comb + 0.5 * view.normal(f"hair-{number}-angle")
    length = 0.25 + 0.95 * draw("length", 0, 1) ** 1.4  # half of it; the image reaches -1 to 1
    bend = draw("bend", -0.45, 0.45)
    width = draw("width", 0.010, 0.026)
    x, y = pixel_grid(size)
    x, y = x - wide(draw("x", -1, 1)), y - wide(draw("y", -1, 1))
    cos, sin = wide(angle.cos()), wide(angle.sin())
    along, across = cos * x + sin * y, cos * y - sin * x
    slope = 2 * wide(bend) * along
    distance = (across - wide(bend) * along**2).abs() / torch.sqrt(1 + slope**2)
    taper = (1 - (along / wide(length)) ** 2).clamp(min=0).sqrt()
    thickness = wide(width) * taper * size / 2  # in pixels
    return ((thickness + 1) / 2 - distance * size / 2).clamp(min=0).minimum(thickness.clamp(max=1))
