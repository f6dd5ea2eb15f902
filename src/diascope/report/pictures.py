"""Arrays to pictures that travel inside the page: photographs, maps, perturbations, outlines."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image as Pillow
from scipy.ndimage import gaussian_filter

from diascope.audit.results import Heat, Image
from diascope.explain import colours
from diascope.report.charts import path

COLOURS = colours.DEFAULT
LEVELS = 32
LOSSLESS = 96  # perturbations of a larger side are never kept without loss
SIDES = (224, 192, 168, 144, 128, 112, 96, 80, 64, 48, 32)
FACTORS = tuple(k * 10**e for e in range(5) for k in (1, 2, 5))


def photograph(image: Image, side: int) -> str:
    """Return a data URI of an image (H, W, 3) or (H, W, 1) uint8, at most `side` pixels long."""
    pixels = image[..., 0] if image.shape[-1] == 1 else image
    return _webp(_shrunk(Pillow.fromarray(np.ascontiguousarray(pixels)), side), quality=88)


def heat_map(heat: Heat, side: int) -> str:
    """Return a data URI of a map (H, W) in [0, 1], to be laid over an image or over `ground`.

    Colours and transparency are chosen so that over the colour of no evidence the picture shows
    exactly the colour map (in `LEVELS` steps), while over an image what is weak lets it through.
    """
    values = np.nan_to_num(np.asarray(heat, dtype=np.float32), nan=0.0, posinf=1.0, neginf=0.0)
    values = np.asarray(_shrunk(Pillow.fromarray(values), side))
    steps = np.rint(np.clip(values, 0, 1) * (LEVELS - 1)).astype(np.uint8)
    picture = Pillow.frombytes("P", steps.shape[::-1], steps.tobytes())
    palette, alpha = _palette()
    picture.putpalette(palette)
    return _uri(picture, "PNG", optimize=True, transparency=alpha)


def ground() -> str:
    """Return the colour of no evidence, as a style sheet writes it."""
    return _css(colours.table(COLOURS, LEVELS)[0])


def ramp() -> str:
    """Return the colours from none to most, as a style sheet writes a gradient."""
    return f"linear-gradient(90deg, {', '.join(_css(c) for c in colours.table(COLOURS, 9))})"


def _css(colour: NDArray[np.float64]) -> str:
    return "#" + "".join(f"{v:02x}" for v in _eight_bits(colour))


@cache
def _palette() -> tuple[bytes, bytes]:
    """Return the palette (R, G, B, ...) and the transparency of each level."""
    rgb = colours.table(COLOURS, LEVELS)  # (L, 3)
    lowest = rgb[0]
    rise = (rgb - lowest) / np.maximum(1 - lowest, 1e-6)
    fall = (lowest - rgb) / np.maximum(lowest, 1e-6)
    least = np.maximum(rise, fall).max(1)  # below it no colour would do
    alpha = np.maximum.accumulate(np.maximum(least, np.linspace(0, 1, LEVELS)))
    straight = lowest + (rgb - lowest) / np.maximum(alpha, 1e-6)[:, None]
    return _eight_bits(straight).tobytes(), _eight_bits(alpha).tobytes()


def perturbation(delta: Heat, factor: float, encoding: Encoding) -> str:
    """Return a data URI of a perturbation (H, W, C), `factor` times as large, around mid-grey."""
    shown = _eight_bits(0.5 + factor * np.nan_to_num(np.asarray(delta, dtype=np.float32)))
    pixels = shown[..., 0] if shown.shape[-1] == 1 else shown
    picture = _shrunk(Pillow.fromarray(np.ascontiguousarray(pixels)), encoding.side)
    return _webp(picture, lossless=True) if encoding.lossless else _webp(picture, 75)


def magnification(deltas: list[Heat]) -> float:
    """Return the round factor (1, 2, 5, 10, ...) that fits 99% of the values into the range."""
    sizes = [float(np.nanquantile(np.abs(d), 0.99)) for d in deltas if np.isfinite(d).any()]
    largest = max(sizes, default=0.0)
    fitting = [f for f in FACTORS if f * largest <= 0.5]
    return float(fitting[-1] if fitting and largest > 0 else 1)


def outline(mask: NDArray[np.bool_]) -> str:
    """Return the SVG path of a mask's (H, W) edge, in pixels; empty for an empty mask."""
    return "".join(path(map(tuple, p), close=True) for p in polygons(mask))


def polygons(mask: NDArray[np.bool_]) -> list[NDArray[np.float64]]:
    """Return the edge of a mask (H, W) as closed lines (N, 2) of x and y in pixels.

    A little smoothed, without the steps of the pixels; (0, 0) is the picture's corner.
    """
    padded = np.pad(mask.astype(np.float32), 1)
    smooth = gaussian_filter(padded, 0.7)
    field = smooth if smooth.max() > 0.5 else padded
    if field.max() <= 0.5:
        return []
    edges: Any = _axes().contour(field, levels=[0.5])
    lines = [p for each in edges.get_paths() for p in each.to_polygons(closed_only=False)]
    edges.remove()
    return [np.asarray(line, dtype=np.float64) - 0.5 for line in lines]


@cache
def _axes() -> Any:
    return Figure().add_subplot()


@dataclass(frozen=True)
class Encoding:
    """How large pictures are kept, and whether perturbations are kept without loss."""

    side: int
    lossless: bool


@dataclass(frozen=True)
class Kind:
    """Pictures of one kind: how many the page holds, and how a sample of them is encoded."""

    count: int
    samples: Sequence[Callable[[Encoding], str]]

    def size(self, encoding: Encoding) -> float:
        """Return how many bytes all of them will take."""
        if not self.samples:
            return 0.0
        return self.count * sum(len(s(encoding)) for s in self.samples) / len(self.samples)


def fitting(budget: int, kinds: Sequence[Kind], side: int) -> Encoding:
    """Return the best encoding in which pictures of at most `side` fit into `budget` bytes.

    What they take is foretold from the samples, encoded at falling sizes.
    """
    if side <= LOSSLESS:
        best = Encoding(side, True)
        if sum(kind.size(best) for kind in kinds) <= budget:
            return best
    for smaller in (side, *(s for s in SIDES if s < side)):
        encoding = Encoding(smaller, False)
        if sum(kind.size(encoding) for kind in kinds) <= budget:
            return encoding
    return Encoding(min(side, SIDES[-1]), False)


def _shrunk(picture: Pillow.Image, side: int) -> Pillow.Image:
    longest = max(picture.size)
    if longest <= side:
        return picture
    width, height = (max(1, round(v * side / longest)) for v in picture.size)
    return picture.resize((width, height), Pillow.Resampling.BOX)


def _eight_bits(values: NDArray[np.floating[Any]]) -> NDArray[np.uint8]:
    rounded: NDArray[np.uint8] = np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return rounded


def _webp(picture: Pillow.Image, quality: int = 80, lossless: bool = False) -> str:
    return _uri(picture, "WEBP", quality=quality, lossless=lossless, method=4)


def _uri(picture: Pillow.Image, kind: str, **options: Any) -> str:
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(file.getvalue()).decode()}"
