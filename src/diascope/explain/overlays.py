"""Maps laid over images, and the outlines of masks and boxes, as pictures of 8 bits."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from diascope.explain.colours import DEFAULT, SIGNED, colourise

Colour = tuple[int, int, int]
Box = Sequence[float]  # x, y, width, height in pixels, as in the tables of datasets

WHITE, BLACK, YELLOW = (255, 255, 255), (0, 0, 0), (240, 228, 66)
LUMA = (0.299, 0.587, 0.114)  # ITU-R 601


def picture(x: Tensor, *, grey: bool = False) -> Tensor:
    """Return images (B, C, H, W) in [0, 1], C = 1 or 3, as pictures (B, 3, H, W) uint8.

    grey: without their colours, so that those of a map stand out.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(f"images {tuple(x.shape)}: expected (B, 1 or 3, H, W)")
    x = x.detach().float().nan_to_num(nan=0.0)
    if grey and x.shape[1] == 3:
        x = (x * x.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)
    return (x.clamp(0, 1) * 255).round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()


def overlay(
    x: Tensor, heat: Tensor, name: str = DEFAULT, *, strength: float = 0.9, grey: bool = False
) -> Tensor:
    """Return maps laid over their images, (B, 3, H, W) uint8.

    x: images (B, 1 or 3, H, W) in [0, 1]; heat: maps (B, H, W) in [0, 1], or for the colours
    "signed" in [-1, 1]. A pixel's opacity is `strength` times the size of its evidence: where
    there is none the image stands as it is. grey: the image without its colours.
    """
    if heat.shape != (len(x), *x.shape[2:]):
        raise ValueError(f"heat {tuple(heat.shape)} does not fit images {tuple(x.shape)}")
    if not 0 < strength <= 1:
        raise ValueError(f"strength={strength}: must lie in (0, 1]")
    size = heat.detach().float().nan_to_num(nan=0.0)
    size = size.abs() if name == SIGNED else size
    alpha = strength * size.clamp(0, 1)[:, None]  # (B, 1, H, W)
    below, above = picture(x, grey=grey).float(), colourise(heat, name).float()
    return torch.lerp(below, above, alpha).round().to(torch.uint8)


def enlarged(pictures: Tensor, least: int) -> Tensor:
    """Return pictures or masks (B, ..., H, W) with each pixel repeated, to sides of `least`.

    The factor is whole, so that every pixel stays the square it is; 1 where they are as large.
    """
    factor = max(1, -(-least // max(pictures.shape[-2:])))
    return pictures.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def outlined(
    pictures: Tensor, masks: Tensor, *, inner: Colour = WHITE, outer: Colour = BLACK, width: int = 1
) -> Tensor:
    """Return pictures (B, 3, H, W) uint8 with the outlines of masks (B, H, W) bool.

    A double line, which is seen on dark and on light skin alike: `inner` on the mask's last
    `width` pixels, `outer` on as many beyond them. An empty mask draws nothing.
    """
    if masks.shape != (len(pictures), *pictures.shape[2:]) or masks.dtype != torch.bool:
        raise ValueError(
            f"masks {tuple(masks.shape)} {masks.dtype} do not fit pictures {tuple(pictures.shape)}"
        )
    inside, last = edges(masks.to(pictures.device), width)
    for line, colour in ((inside, inner), (last, outer)):
        shade = pictures.new_tensor(colour)[:, None, None]
        pictures = torch.where(line[:, None], shade, pictures)
    return pictures


def edges(masks: Tensor, width: int = 1) -> tuple[Tensor, Tensor]:
    """Return the last `width` pixels inside masks (B, H, W), and as many just outside."""
    kernel = 2 * width + 1
    inside, outside = masks.float()[:, None], (~masks).float()[:, None]
    near = F.max_pool2d(inside, kernel, 1, width)[:, 0] > 0
    framed = F.pad(outside, (width,) * 4, value=1.0)  # beyond the picture nothing is inside
    left = F.max_pool2d(framed, kernel, 1)[:, 0] > 0
    return masks & left, near & ~masks


def boxed(pictures: Tensor, boxes: Sequence[Sequence[Box]], *, width: int = 1) -> Tensor:
    """Return pictures (B, 3, H, W) uint8 with the boxes (x, y, w, h) of each, in their pixels.

    Each box is drawn whole, whether or not others lie over it; its part beyond the picture is
    left out.
    """
    if len(boxes) != len(pictures):
        raise ValueError(f"boxes of {len(boxes)} images for {len(pictures)} pictures")
    height, width_all = pictures.shape[2:]
    done = []
    for each, own in zip(pictures, boxes, strict=True):
        drawn = each[None]
        for x, y, w, h in own:
            mask = torch.zeros(1, height, width_all, dtype=torch.bool, device=pictures.device)
            left, top = max(0, round(x)), max(0, round(y))
            mask[0, top : max(top, round(y + h)), left : max(left, round(x + w))] = True
            drawn = outlined(drawn, mask, inner=YELLOW, width=width)
        done.append(drawn)
    return torch.cat(done) if done else pictures
