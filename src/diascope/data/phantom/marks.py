"""What the hospital puts into the picture: ruler marks, and the sticker that is the shortcut."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.data.phantom.dice import TURN, Dice, pixel_grid, smoothstep, wide
from diascope.data.phantom.traits import CLASSES

INK = torch.tensor([0.10, 0.10, 0.13])
# nevus, keratosis, melanoma: a green and an orange sticker, and gentian violet
STICKERS = torch.tensor([[0.20, 0.58, 0.42], [0.93, 0.62, 0.20], [0.40, 0.24, 0.62]])


def draw_ruler(light: Tensor, view: Dice, chance: Tensor) -> Tensor:
    """Return `light` (B, 3, H, W), with the ticks of a ruler along one side of some images."""
    size = light.shape[-1]
    x, y = pixel_grid(size)
    side = view.between("ruler-side", 0, 4).long() * (TURN / 4)
    angle = side + view.between("ruler-angle", -0.06, 0.06)
    cos, sin = wide(angle.cos()), wide(angle.sin())
    along = cos * x + sin * y
    inward = 1 - (cos * y - sin * x) - wide(view.between("ruler-inset", 0.0, 0.08))
    pitch = wide(view.between("ruler-pitch", 0.11, 0.17))
    place = along / pitch + wide(view.between("ruler-start", 0, 10))
    tick = (place - place.round()).abs() * pitch  # distance to the nearest tick
    long = (place.round() % 5 == 0).float()
    soft = 1.0 / size
    ink = (1 - smoothstep(tick, 0.006, 0.012 + soft)) * (inward > 0)
    ink = ink * (1 - smoothstep(inward, 0.12, 0.12 + soft)).lerp(
        1 - smoothstep(inward, 0.22, 0.22 + soft), long
    )
    ink = ink * wide(view.happens("ruler", chance).float() * view.between("ruler-ink", 0.55, 0.9))
    return torch.lerp(light, INK[:, None, None].expand_as(light), ink[:, None])


def draw_sticker(
    light: Tensor, view: Dice, label: Tensor, agreement: Tensor, lesion_mask: Tensor, tube: Tensor
) -> tuple[Tensor, Tensor]:
    """Return `light` (B, 3, H, W) with stickers, and the pixels they cover (B, H, W) bool.

    With probability `agreement` (B,) a sticker has the colour of the class `label` (B,), else
    that of another class drawn uniformly; NaN draws none. It lies in a corner, under the lesion,
    and further in where the rim of the `tube` (B,) bool hides the corners.
    """
    told = sticker_class(view, label, agreement)
    x, y = pixel_grid(light.shape[-1])
    corner = _emptiest(lesion_mask, view)
    reach = torch.where(tube, 0.75, 1.0)
    sx = torch.where(corner % 2 == 0, -reach, reach) * view.between("sticker-x", 0.72, 1.0)
    sy = torch.where(corner < 2, -reach, reach) * view.between("sticker-y", 0.72, 1.0)
    angle = view.between("sticker-turn", 0, TURN)
    cos, sin = wide(angle.cos()), wide(angle.sin())
    dx, dy = x - wide(sx), y - wide(sy)
    long = wide(view.between("sticker-long", 0.30, 0.46))
    flat = long * wide(view.between("sticker-flat", 0.75, 1.0))
    inside = ((cos * dx + sin * dy) / long) ** 2 + ((cos * dy - sin * dx) / flat) ** 2 < 1
    mask = inside & ~lesion_mask & wide(~agreement.isnan())
    paint = STICKERS[told] * (1 + 0.06 * view.normal("sticker-shade", (3,)))
    paint = paint[..., None, None] * (0.75 + 0.25 * light.mean(1, keepdim=True) / 0.7)
    return torch.where(mask[:, None], torch.lerp(light, paint, 0.88), light), mask


def sticker_class(view: Dice, label: Tensor, agreement: Tensor) -> Tensor:
    """Return the class that each sticker tells (B,): `label` with probability `agreement`."""
    other = (label + view.between("sticker-lie", 1, len(CLASSES)).long()) % len(CLASSES)
    return torch.where(view.happens("sticker-true", agreement), label, other)


def _emptiest(lesion_mask: Tensor, view: Dice) -> Tensor:
    """Return the corner (B,) 0..3 whose quarter holds least of the lesion, ties at random."""
    half = lesion_mask.shape[-1] // 2
    top, bottom = lesion_mask[:, :half], lesion_mask[:, -half:]
    quarters = [top[..., :half], top[..., -half:], bottom[..., :half], bottom[..., -half:]]
    filled = torch.stack([q.float().mean((1, 2)) for q in quarters], dim=1)
    return (filled + 0.1 * view.between("sticker-corner", 0, 1, (4,))).argmin(1)
