"""Skin as light sees it: white scattering tissue under two absorbing pigments."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from diascope.data.phantom.dice import Dice, smoothstep, wide

# Absorbance of red, green and blue light per unit of pigment; ordered as in tissue, where
# melanin absorbs more the shorter the wave and haemoglobin spares red.
MELANIN = torch.tensor([0.62, 1.02, 1.32])
BLOOD = torch.tensor([0.10, 0.92, 0.70])
TISSUE = torch.tensor([0.97, 0.91, 0.88])


@dataclass(frozen=True)
class Pigment:
    """Amounts of the two pigments in each pixel, (B, H, W) each, in optical densities."""

    melanin: Tensor
    blood: Tensor

    def colour(self) -> Tensor:
        """Return the light that comes back (B, 3, H, W) in [0, 1] (Beer-Lambert)."""
        density = self.melanin[:, None] * MELANIN[:, None, None]
        density = density + self.blood[:, None] * BLOOD[:, None, None]
        return torch.exp(-density) * TISSUE[:, None, None]


def draw_skin(lesion: Dice, view: Dice, size: int) -> Pigment:
    """Return bare skin: the tone is the patient's, the texture that of the view."""
    tone = wide(lesion.between("tone", 0, 1) ** 2 * 0.28 + 0.03)
    flush = wide(lesion.between("flush", 0.04, 0.30))
    slow = view.field("skin-slow", 4, size)
    middle = view.field("skin-middle", 14, size)
    lines = view.field("skin-lines", 40, size).abs()
    fine = view.field("skin-fine", 80, size)
    pores = smoothstep(view.field("pores", 44, size), 1.5, 2.6)
    freckles = smoothstep(view.field("freckles", 18, size), 1.7, 2.8)
    freckled = wide(lesion.between("freckled", -0.5, 0.5).clamp(min=0))
    rough = wide(view.between("rough", 0.4, 1.2))
    melanin = tone * (
        1 + 0.18 * slow + rough * (0.08 * middle + 0.14 * (0.8 - lines) + 0.10 * fine)
    )
    melanin = melanin + 0.035 * rough * pores + freckled * freckles * 0.5
    blood = flush * (
        1 + 0.22 * view.field("flush-slow", 5, size) + rough * (0.09 * middle + 0.12 * fine)
    )
    blood = blood + 0.03 * rough * (0.8 - lines)
    return Pigment(melanin.clamp(min=0), blood.clamp(min=0))
