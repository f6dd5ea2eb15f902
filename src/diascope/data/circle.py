"""Finding the lit disc of a fundus photograph, or of any image seen through a round tube."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from diascope.data.windows import Window

SIDE = 256  # the longer side, at most, at which discs are sought
LEVELS = (0.1, 0.06, 0.16, 0.25, 0.4)  # of the way from dark to lit
ENOUGH = 0.95  # agreement with which no other level is tried
DRAWS, VOTERS = 128, 256
_TRIPLES = np.random.default_rng(0).random((DRAWS, 3))


@dataclass(frozen=True)
class Disc:
    """A disc in pixels of its image, pixel k being the interval from k to k + 1."""

    x: float
    y: float
    radius: float

    @property
    def window(self) -> Window:
        """The disc's bounding square."""
        side = max(round(2 * self.radius), 1)
        return Window(round(self.y - side / 2), round(self.x - side / 2), side, side)


def find_disc(image: NDArray[np.uint8]) -> Disc | None:
    """Return the lit disc of `image` (H, W, C) before a dark ground; None where there is none.

    At some levels of brightness the edge of the largest lit part is taken, less what lies on the
    edge of the image, where a disc may be cut off; the circle through three edge pixels with
    which most others agree (Fischler and Bolles 1981) is fitted to those by least squares. The
    level with the best agreement is kept. A disc must be agreed upon by half of the edge, lit
    within and dark around it; a lit frame without a dark ground is none, nor is another shape.
    """
    factor = -(-max(image.shape[:2]) // SIDE)
    pixels = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    small = np.asarray(pixels.reduce(factor) if factor > 1 else pixels)
    light = small.max(2) if small.ndim == 3 else small  # (h, w)
    dark, bright = np.percentile(light, (1, 99))
    if bright - dark < 16:
        return None
    lit = np.median(light[light > dark + 0.2 * (bright - dark)])
    best: tuple[float, NDArray[np.float64]] | None = None
    for level in LEVELS:
        found = _at_level(light, dark + level * (lit - dark))
        if found is not None and (best is None or found[0] > best[0]):
            best = found
        if best is not None and best[0] >= ENOUGH:
            break
    if best is None:
        return None
    x, y, radius = (best[1] * factor).tolist()
    return Disc(x, y, radius)


def _at_level(light: NDArray[np.uint8], level: float) -> tuple[float, NDArray[np.float64]] | None:
    """Return how far the edge at `level` agrees on a circle, and its (x, y, radius)."""
    parts, count = ndimage.label(light > level)
    if not count:
        return None
    lit = parts == np.bincount(parts.ravel())[1:].argmax() + 1
    points = _edge(lit)
    if len(points) < 24:
        return None
    circle = _circle(points)
    if circle is None:
        return None
    x, y, radius = circle
    near = _near(points, circle)
    angle = np.sort(np.arctan2(points[near, 1] - y, points[near, 0] - x))
    gaps = np.diff(angle, append=angle[:1] + 2 * np.pi)
    rows, columns = np.arange(lit.shape[0])[:, None] + 0.5, np.arange(lit.shape[1]) + 0.5
    distance = ((columns - x) ** 2 + (rows - y) ** 2) / radius**2
    within, around = lit[distance < 0.95**2], lit[distance > 1.05**2]
    fits = (
        near.mean() >= 0.5
        and gaps.max() < np.pi * 1.1
        and min(lit.shape) * 0.2 <= radius <= max(lit.shape) * 0.75
        and within.mean() >= 0.7
        and around.size > 0
        and around.mean() <= 0.1
    )
    return (float(near.mean()), circle) if fits else None


def _edge(lit: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return where each row and column of `lit` begins and ends, (N, 2) of x and y.

    What begins or ends with the image is left out.
    """
    found = []
    for across, turned in ((lit, False), (lit.T, True)):
        lines = np.flatnonzero(across.any(1))
        first = across[lines].argmax(1)
        last = across.shape[1] - across[lines, ::-1].argmax(1)
        for place, inner in ((first, first > 0), (last, last < across.shape[1])):
            points = np.stack([place[inner], lines[inner] + 0.5], 1).astype(np.float64)
            found.append(points[:, ::-1] if turned else points)
    return np.concatenate(found)


def _circle(points: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Return (x, y, radius) of the circle with which most `points` (N, 2) agree."""
    corners = points[(_TRIPLES * len(points)).astype(np.int64)]  # (DRAWS, 3, 2)
    with np.errstate(all="ignore"):
        circles = _through(*corners.transpose(1, 2, 0))  # (DRAWS, 3)
    circles = circles[np.isfinite(circles).all(1)]
    if not len(circles):
        return None
    x, y = points[:: -(-len(points) // VOTERS), :, None].transpose(1, 0, 2)  # (N, 1)
    away = np.hypot(x - circles[:, 0], y - circles[:, 1])
    votes = (np.abs(away - circles[:, 2]) <= _tolerance(circles[:, 2])).sum(0)
    circle: NDArray[np.float64] = circles[votes.argmax()]
    for _ in range(3):
        near = _near(points, circle)
        if near.sum() < 12:
            return None
        circle = _fitted(points[near])
    return circle if np.isfinite(circle).all() else None


def _through(
    a: NDArray[np.float64], b: NDArray[np.float64], c: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return (x, y, radius) of the circles through three points (2, N) each, as (N, 3).

    Three points on a line give what is not finite.
    """
    (bx, by), (cx, cy) = b - a, c - a
    twice = 2 * (bx * cy - by * cx)
    bb, cc = bx**2 + by**2, cx**2 + cy**2
    x, y = (cy * bb - by * cc) / twice, (bx * cc - cx * bb) / twice
    return np.stack([a[0] + x, a[1] + y, np.hypot(x, y)], 1)


def _fitted(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (x, y, radius) of the circle nearest to `points` by least squares (Kasa 1976)."""
    middle = points.mean(0)
    u = points - middle
    system = np.column_stack([2 * u, np.ones(len(u))])
    (x, y, rest), *_ = np.linalg.lstsq(system, (u**2).sum(1), rcond=None)
    return np.array([middle[0] + x, middle[1] + y, np.sqrt(rest + x**2 + y**2)])


def _near(points: NDArray[np.float64], circle: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return which of `points` (N, 2) lie on the circle (x, y, radius), (N,)."""
    x, y, radius = circle
    away = np.hypot(points[:, 0] - x, points[:, 1] - y)
    near: NDArray[np.bool_] = np.abs(away - radius) <= _tolerance(radius)
    return near


def _tolerance(radius: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """Return how far an edge pixel may lie from its circle."""
    return np.maximum(1.5, 0.015 * np.asarray(radius))
