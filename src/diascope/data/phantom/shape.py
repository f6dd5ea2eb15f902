"""Where a lesion lies and what its outline is."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from diascope.data.phantom.dice import TURN, Dice, pixel_grid, wide
from diascope.data.phantom.traits import Traits

REACH = 2.4  # half the width of the lesion's own frame, in lesion radii
ANGLES = 512


@dataclass(frozen=True)
class Shape:
    """The geometry of a batch of lesions in the pixels of their images.

    `u`, `v` are lesion coordinates (mean radius 1) and `depth` the distance inside the outline
    in lesion radii, negative outside; all (B, H, W).
    """

    u: Tensor
    v: Tensor
    depth: Tensor
    mask: Tensor

    def sample(self, fields: Tensor) -> Tensor:
        """Return fields of the lesion's own frame (B, C, S, S) at the image's pixels."""
        grid = torch.stack([self.u, self.v], dim=-1) / REACH
        return grid_sample(fields, grid, align_corners=False, padding_mode="border")


def place_lesion(lesion: Dice, view: Dice, traits: Traits, size: int) -> Shape:
    """Return the lesions' geometry; about a third lie away from the centre of the image."""
    radius = lesion.between("radius", 0.28, 0.66) * view.between("zoom", 0.92, 1.08)
    room = (0.92 - 1.15 * radius).clamp(min=0.08)
    away = view.happens("off-centre", 0.35)
    far = torch.where(
        away, view.between("far", 0.6, 1.0) * room, view.between("near", 0.0, 0.35) * room
    )
    bearing = view.between("bearing", 0, TURN)
    # A square frame has more room towards its corners.
    far = far / torch.maximum(bearing.cos().abs(), bearing.sin().abs())
    x, y = pixel_grid(size)
    x = x - wide(far * bearing.cos())
    y = y - wide(far * bearing.sin())
    turn = view.between("turn", 0, TURN)
    cos, sin = wide(turn.cos() / radius), wide(turn.sin() / radius)
    u, v = cos * x + sin * y, cos * y - sin * x
    stretch = wide(1 + 0.28 * lesion.between("stretch", 0, 1))
    shape = Shape(u * stretch.sqrt(), v / stretch.sqrt(), torch.empty(0), torch.empty(0))
    depth = _depth(lesion, traits, shape, size)
    return Shape(shape.u, shape.v, depth, depth > 0)


def _depth(lesion: Dice, traits: Traits, shape: Shape, size: int) -> Tensor:
    """Return how far inside the outline each pixel lies, in lesion radii (B, H, W)."""
    resolution = max(48, size)
    ragged = wide(0.012 + 0.05 * traits.border)
    warp = torch.stack(
        [
            lesion.field(f"{axis}-coarse", 11, resolution)
            + 0.8 * lesion.field(f"{axis}-middle", 24, resolution)
            + 0.6 * lesion.field(f"{axis}-fine", 50, resolution)
            for axis in ("warp-u", "warp-v")
        ],
        dim=1,
    )
    du, dv = shape.sample(warp).unbind(1)
    u, v = shape.u + ragged * du, shape.v + ragged * dv
    angle = torch.atan2(v, u)
    outline = _outline(lesion, traits)  # (B, ANGLES + 1)
    place = ((angle / TURN) % 1.0) * ANGLES
    low = place.floor().clamp(max=ANGLES - 1)
    index = low.long().flatten(1)
    before = outline.gather(1, index).view_as(place)
    after = outline.gather(1, index + 1).view_as(place)
    return torch.lerp(before, after, place - low) - torch.hypot(u, v)


def _outline(lesion: Dice, traits: Traits) -> Tensor:
    """Return the radius at equal angles, the first repeated at the end, (B, ANGLES + 1).

    A sum of waves round the outline: the 2nd to 4th make it lopsided, the 5th to 14th ragged.
    """
    wave = torch.arange(2, 15)
    slow = wave < 5
    lopsided = 0.015 + 0.115 * traits.asymmetry[:, None]
    ragged = (0.006 + 0.050 * traits.border[:, None]) * (6 / wave).clamp(max=1)
    amplitude = torch.where(slow, lopsided, ragged) * lesion.normal("waves", (len(wave),))
    amplitude = amplitude.clamp(-0.24, 0.24)
    phase = lesion.between("phases", 0, TURN, (len(wave),))
    angles = torch.arange(ANGLES + 1) / ANGLES * TURN
    waves = torch.cos(wave[None, :, None] * angles[None, None] + phase[..., None])
    return (1 + (amplitude[..., None] * waves).sum(1)).clamp(min=0.35)
