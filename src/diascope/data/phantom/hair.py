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
    hairy = view.happens("hairy", 0.45)
    count = torch.where(hairy, 1 + view.between("hairs", 0, 1) ** 2.2 * MOST, 0.0).long()
    fair = view.happens("fair", 0.22)
    comb = view.between("comb", 0, TURN)
    cover = torch.zeros(len(light), size, size)
    strands = _strands(view, comb)
    for number in range(MOST):
        rows = (count > number).nonzero().squeeze(1)
        if len(rows):
            stroke = _stroke({name: v[rows, number] for name, v in strands.items()}, size)
            cover[rows] = torch.maximum(cover[rows], stroke)
    mask = cover >= FAINT
    shade = torch.where(fair[:, None], FAIR, DARK) * view.between("shade", 0.7, 1.15)[:, None]
    opacity = torch.where(mask, cover * wide(view.between("opaque", 0.75, 0.97)), 0.0)
    return torch.lerp(light, shade[..., None, None].expand_as(light), opacity[:, None]), mask


def _strands(view: Dice, comb: Tensor) -> dict[str, Tensor]:
    """Return where each hair lies and how it is bent, (B, MOST); the image reaches -1 to 1."""

    def draw(name: str, low: float, high: float) -> Tensor:
        return view.between(f"hair-{name}", low, high, (MOST,))

    angle = comb[:, None] + 0.5 * view.normal("hair-angle", (MOST,))
    return {
        "x": draw("x", -1, 1),
        "y": draw("y", -1, 1),
        "cos": angle.cos(),
        "sin": angle.sin(),
        "half": 0.25 + 0.95 * draw("length", 0, 1) ** 1.4,
        "bend": draw("bend", -0.45, 0.45),
        "width": draw("width", 0.008, 0.021),
    }


def _stroke(strand: dict[str, Tensor], size: int) -> Tensor:
    """Return how much of each pixel the hair covers (B, H, W): an arc that thins at its ends."""
    hair = {name: wide(value) for name, value in strand.items()}
    x, y = pixel_grid(size)
    x, y = x - hair["x"], y - hair["y"]
    along = hair["cos"] * x + hair["sin"] * y
    across = hair["cos"] * y - hair["sin"] * x
    slope = 2 * hair["bend"] * along
    distance = (across - hair["bend"] * along**2).abs() / torch.sqrt(1 + slope**2)
    taper = (1 - (along / hair["half"]) ** 2).clamp(min=0).sqrt()
    thickness = hair["width"] * taper * size / 2  # in pixels
    return ((thickness + 1) / 2 - distance * size / 2).clamp(min=0).minimum(thickness.clamp(max=1))
