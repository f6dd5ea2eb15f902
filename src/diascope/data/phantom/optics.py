"""The dermatoscope and its camera: light, vignette, colour cast, blur and sensor noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from diascope.data.phantom.dice import TURN, Dice, pixel_grid, smoothstep, wide


@dataclass(frozen=True)
class Hospital:
    """How a hospital takes its pictures; `cast` is the gain of red, green and blue."""

    cast: tuple[float, float, float]
    gamma: float
    vignette: float
    tube: float  # share of images in which the rim of the tube is seen
    ruler: float
    blur: float
    noise: float


HOSPITALS = {
    "a": Hospital((1.02, 0.95, 0.94), 1.00, 0.16, 0.06, 0.15, 0.5, 0.010),
    "b": Hospital((0.86, 0.90, 1.00), 1.12, 0.30, 0.12, 0.25, 0.7, 0.014),
}


def hospital_value(which: Tensor, name: str) -> Tensor:
    """Return a property of each image's hospital, (B,) or (B, 3); `which` is 0 for a, 1 for b."""
    return torch.tensor([getattr(h, name) for h in HOSPITALS.values()])[which]


def photograph(light: Tensor, view: Dice, which: Tensor) -> Tensor:
    """Return the pictures (B, 3, H, W) in [0, 1] that each hospital takes of `light`."""
    size = light.shape[-1]
    cast = hospital_value(which, "cast") * (1 + 0.035 * view.normal("white-balance", (3,)))
    gain = cast * view.between("exposure", 0.88, 1.06)[:, None]
    picture = light * gain[..., None, None] * _lamp(view, which, size)[:, None]
    gamma = hospital_value(which, "gamma") * view.between("gamma", 0.94, 1.08)
    picture = picture.clamp(1e-4, 1) ** gamma[:, None, None, None]
    picture = _blur(picture, hospital_value(which, "blur") * view.between("blur", 0.3, 1.1))
    noise = view.grain("sensor", (3, size, size))
    amount = hospital_value(which, "noise") * view.between("noise", 0.6, 1.4)
    return (picture + amount[:, None, None, None] * noise).clamp(0, 1)


def inside_tube(view: Dice, which: Tensor, size: int) -> Tensor:
    """Return how much of each pixel's light the rim of the tube lets through (B, H, W)."""
    x, y = pixel_grid(size)
    x, y = (
        x - wide(view.between("tube-x", -0.06, 0.06)),
        y - wide(view.between("tube-y", -0.06, 0.06)),
    )
    rim = wide(torch.where(has_tube(view, which), view.between("rim", 1.10, 1.28), 9.0))
    return 1 - smoothstep(torch.hypot(x, y) - rim, -0.06, 0.03)


def has_tube(view: Dice, which: Tensor) -> Tensor:
    """Return in which images (B,) the rim of the tube is seen."""
    return view.happens("tube", hospital_value(which, "tube"))


def _lamp(view: Dice, which: Tensor, size: int) -> Tensor:
    """Return how much light reaches each pixel (B, H, W)."""
    x, y = pixel_grid(size)
    x, y = x - wide(0.10 * view.normal("lamp-x")), y - wide(0.10 * view.normal("lamp-y"))
    strength = wide(hospital_value(which, "vignette") * view.between("vignette", 0.2, 1.5))
    bearing = wide(view.between("lamp-bearing", 0, TURN))
    tilt = wide(view.between("lamp-tilt", 0, 0.06)) * (x * bearing.cos() + y * bearing.sin())
    lamp = (1 + tilt) * (1 - strength * ((x**2 + y**2) / 2) ** 1.3).clamp(min=0.1)
    return lamp * (0.05 + 0.95 * inside_tube(view, which, size))


def _blur(picture: Tensor, weight: Tensor) -> Tensor:
    """Return `picture` blended with a Gaussian blur of itself by `weight` (B,)."""
    kernel = _gaussian(picture.shape[-1])
    soft = ((picture @ kernel.T).mT @ kernel.T).mT
    return torch.lerp(picture, soft, weight[:, None, None, None].clamp(0, 1))


@lru_cache(maxsize=8)
def _gaussian(size: int) -> Tensor:
    """Return the matrix that blurs a line of pixels, (size, size); its rows sum to one."""
    place = torch.arange(size)
    kernel = torch.exp(-((place[:, None] - place) ** 2) / (2 * (0.014 * size) ** 2))
    kernel = torch.where(kernel < 1e-4, 0.0, kernel)  # denormal numbers are slow
    return kernel / kernel.sum(1, keepdim=True)
