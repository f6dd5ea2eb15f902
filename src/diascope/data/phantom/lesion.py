"""The pigment of a lesion, laid on skin inside its outline."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.data.phantom.dice import TURN, Dice, smoothstep, wide
from diascope.data.phantom.shape import Shape
from diascope.data.phantom.skin import Pigment
from diascope.data.phantom.traits import Traits

VEIL = torch.tensor([0.42, 0.47, 0.60])
CYST = torch.tensor([0.93, 0.84, 0.70])
FIELDS = {
    "blotch": 3,
    "second": 4,
    "veil": 3,
    "mottle": 15,
    "dots": 38,
    "net": 46,
    "grain": 80,
    "edge": 5,
}


def draw_lesion(skin: Pigment, lesion: Dice, traits: Traits, shape: Shape, size: int) -> Tensor:
    """Return skin with lesions (B, 3, H, W) in [0, 1]; outside `shape.mask` it is bare skin."""
    resolution = max(64, size)
    fields = torch.stack([lesion.field(n, c, resolution) for n, c in FIELDS.items()], dim=1)
    part = dict(zip(FIELDS, shape.sample(fields).unbind(1), strict=True))
    colour, mottle = wide(traits.colour), wide(traits.mottle)
    opacity = _opacity(lesion, traits, shape, part["edge"])
    scar = 0.8 * (colour - 0.25).clamp(min=0) * smoothstep(-part["second"], 0.5, 1.3) * shape.mask
    melanin = opacity * _melanin(lesion, traits, shape, part) * (1 - scar)
    redness = wide(lesion.between("redness", 0.02, 0.35))
    blood = opacity * redness * (1 + 1.8 * colour * smoothstep(part["second"], 0.2, 1.6))
    light = Pigment(skin.melanin + melanin, skin.blood * (1 - 0.5 * scar) + blood).colour()
    veil = 0.75 * (colour - 0.3).clamp(min=0) * smoothstep(part["veil"], -0.1, 0.9) * opacity
    light = torch.lerp(light, VEIL[:, None, None].expand_as(light), veil[:, None])
    cysts = 0.85 * (mottle - 0.25).clamp(min=0) * smoothstep(part["dots"], 1.25, 1.9) * opacity
    return torch.lerp(light, CYST[:, None, None].expand_as(light), cysts[:, None])


def _opacity(lesion: Dice, traits: Traits, shape: Shape, edge: Tensor) -> Tensor:
    """Return how much pigment lies at each pixel: 0 outside, rising inwards from the outline.

    The rise starts with a step, so that every pixel of the mask is drawn.
    """
    width = wide(0.06 + 0.75 * (1 - traits.sharpness).clamp(0, 1))
    uneven = torch.exp(0.7 * wide(traits.asymmetry) * edge)  # sharp here, fading there
    step = wide(0.10 + 0.38 * traits.sharpness)
    rise = smoothstep(shape.depth / (width * uneven), -0.15, 1.0)
    return torch.where(shape.mask, step + (1 - step) * rise, 0.0)


def _melanin(lesion: Dice, traits: Traits, shape: Shape, part: dict[str, Tensor]) -> Tensor:
    amount = wide(0.32 + 1.25 * lesion.between("amount", 0, 1) ** 1.3)
    bearing = wide(lesion.between("tilt", 0, TURN))
    tilt = (shape.u * bearing.cos() + shape.v * bearing.sin()).clamp(-1.2, 1.2)
    dome = wide(lesion.between("dome", 0.0, 0.6)) * (0.5 - shape.depth).clamp(-0.5, 0.5)
    reticular = wide(lesion.between("reticular", -0.3, 1.0).clamp(min=0))
    net = 0.9 - 1.3 * part["net"].abs()
    colour, mottle, asymmetry = (wide(t) for t in (traits.colour, traits.mottle, traits.asymmetry))
    log = -dome + 0.16 * reticular * net + 0.08 * part["grain"] + 0.70 * asymmetry * tilt
    log = log + 0.90 * colour * part["blotch"] + (0.02 + 0.42 * mottle) * part["mottle"]
    log = log + 1.5 * (mottle - 0.25).clamp(min=0) * smoothstep(-part["dots"], 1.0, 1.8)
    return amount * torch.exp(log.clamp(-1.6, 1.3))
