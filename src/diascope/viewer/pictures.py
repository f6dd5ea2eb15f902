"""Tensors to pictures that travel inside an answer, so that none is ever a file."""

from __future__ import annotations

import base64
import io
import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from diascope.explain import colours
from diascope.report import pictures

_TRACING = threading.Lock()  # what traces edges is not made for several threads
SIDE = 512  # larger pictures are shrunk
THUMB = 96


def as_seen(levels: Tensor, side: int = SIDE) -> str:
    """Return a data URI of an image (C, H, W) uint8, without loss up to `side` pixels."""
    return _png(levels.permute(1, 2, 0).cpu().numpy(), side)


def map_of(heat: Tensor) -> str:
    """Return a data URI of a rendered map (H, W) in [0, 1], to be laid over an image."""
    return pictures.heat_map(heat.float().cpu().numpy(), SIDE)


def added(delta: Tensor) -> tuple[str, float]:
    """Return a data URI of a perturbation (C, H, W) around mid-grey, and how often magnified."""
    values: NDArray[np.float32] = delta.permute(1, 2, 0).float().cpu().numpy()
    factor = pictures.magnification([values])
    return _png(np.rint(np.clip(0.5 + factor * values, 0, 1) * 255).astype(np.uint8), SIDE), factor


def edge_of(mask: NDArray[np.bool_]) -> str:
    """Return the SVG path of a mask's (H, W) edge in pixels; empty where nothing is inside."""
    with _TRACING:
        return pictures.outline(mask)


def ramp(steps: int = 9) -> list[str]:
    """Return the colours of maps as a style sheet writes them, from no evidence to the most."""
    rgb = np.rint(colours.table(pictures.COLOURS, steps) * 255).astype(int)
    return [f"#{r:02x}{g:02x}{b:02x}" for r, g, b in rgb]


def _png(pixels: NDArray[Any], side: int) -> str:
    """Return a data URI of pixels (H, W, 1 or 3) uint8, shrunk to `side`."""
    grey = pixels.shape[-1] == 1
    picture = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels))
    if max(picture.size) > side:
        picture.thumbnail((side, side), Image.Resampling.BOX)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
