"""How alike two images are once one is shifted and stretched onto the other.

A copy that is cropped shows the same things a little elsewhere. The shift and stretch along each
axis, and the gain and offset of brightness, are found by Gauss-Newton steps (Lucas and Kanade
1981), first at 16x16 pixels, where most pairs that are no copies part already. What is compared
in the end is the detail alone: chest X-rays of different patients agree in all that is coarse.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from diascope.audit.datachecks.areas import Floats
from diascope.data.verify import stream

COARSE = (16, 0.8, 6)  # side, blur in its pixels, Gauss-Newton steps
FINE = (32, 1.0, 4)
FINEST = (64, 0.7, 3)  # of the detail itself
COARSELY_ALIKE = 0.96  # correlation of all at 16x16, once aligned, below which none are copies
NEARLY = 0.55  # correlation of details before the last steps, below which none are copies
DETAIL = 2.5  # blur that is taken from thumbnails, in their pixels: the rest is detail
# scale along rows and columns, and shift along both as a share of the image
LEAST = np.array([0.8, 0.8, -0.15, -0.15], np.float32)
MOST = np.array([1.25, 1.25, 0.15, 0.15], np.float32)
CHUNK = 512
BLACK = 12  # grey levels below which a pixel belongs to the surroundings
EDGE = 1.5  # blur, in pixels of the thumbnail, of where they are
LEAST_SEEN = 0.25  # of the image
AROUND = 5.0  # blur over which the strength of detail is measured, to even it out
NOISE = 2.0  # grey levels of detail that count as little
CONTRAST = 0.15  # standard deviation of evened detail, at least


def similarities(
    thumbnails: NDArray[np.uint8], pairs: NDArray[np.int64], threads: int | None = None
) -> Floats:
    """Return the correlation (P,) of the details of aligned thumbnails (N, 64, 64).

    pairs (P, 2): rows. 1 means equal up to brightness; 0 where an image has no detail, less than
    a quarter of the two overlaps, or they differ at 16x16 already. Where the details correlate by
    less than 0.55 before the last steps, that is the answer.
    """
    side, blur, _ = COARSE
    small = np.empty((len(thumbnails), side, side), np.float32)
    for start in range(0, len(thumbnails), 8 * CHUNK):
        part = np.asarray(thumbnails[start : start + 8 * CHUNK]).astype(np.float32)
        small[start : start + 8 * CHUNK] = _blurred(part, side, blur)

    def compare(number: int) -> Floats:
        part = pairs[number * CHUNK : (number + 1) * CHUNK]
        return _compared(thumbnails, small, part)

    blocks = stream(compare, -(-len(pairs) // CHUNK), threads, block=1)
    return np.concatenate([np.zeros(0, np.float32), *(part for block in blocks for part in block)])


def _compared(thumbnails: NDArray[np.uint8], small: Floats, pairs: NDArray[np.int64]) -> Floats:
    found = np.zeros(len(pairs), np.float32)
    a, b = small[pairs[:, 0]], small[pairs[:, 1]]
    places = np.tile(np.array([1, 1, 0, 0], np.float32), (len(pairs), 1))
    places = _aligned(a, b, places, COARSE[2])
    alike = np.flatnonzero(_correlation(a, b, places, 1.0) >= COARSELY_ALIKE)
    if not len(alike):
        return found
    places = places[alike]
    a, b = (np.asarray(thumbnails[pairs[alike, k]]).astype(np.float32) for k in (0, 1))
    side, blur, steps = FINE
    places = _aligned(_blurred(a, side, blur), _blurred(b, side, blur), places, steps)
    (a, seen_a), (b, seen_b) = _detail(a), _detail(b)
    found[alike] = _correlation(a, b, places, CONTRAST, seen_a, seen_b)
    near = np.flatnonzero(found[alike] >= NEARLY)
    if len(near):
        a, b = a[near], b[near]
        side, blur, steps = FINEST
        places = _aligned(_blurred(a, side, blur), _blurred(b, side, blur), places[near], steps)
        found[alike[near]] = _correlation(a, b, places, CONTRAST, seen_a[near], seen_b[near])
    return found


def _aligned(target: Floats, source: Floats, places: Floats, steps: int) -> Floats:
    """Return scale and shift (P, 4), along rows and columns, that lay `source` onto `target`.

    The place y of `target`, in -0.5 ... 0.5 of the image, shows what `source` shows at
    scale * y + shift.
    """
    slopes = [np.gradient(source, axis=axis) for axis in (1, 2)]
    for _ in range(steps):
        places = np.clip(places + _step(target, source, slopes, places), LEAST, MOST)
    return places


def _step(target: Floats, source: Floats, slopes: list[Floats], places: Floats) -> Floats:
    """Return the change (P, 4) of scale and shift that lessens the squared difference most."""
    count, side = target.shape[:2]
    warp = _Warp(places, side)
    y = _centres(side)[:, None]
    jacobian = np.empty((count, 6, side, side), np.float32)
    for k, slope in enumerate(slopes):
        np.multiply(warp(slope), side, out=jacobian[:, 2 + k])
    np.multiply(jacobian[:, 2], y, out=jacobian[:, 0])
    np.multiply(jacobian[:, 3], y.T, out=jacobian[:, 1])
    jacobian[:, 4] = warp(source)
    jacobian[:, 5] = 1
    jacobian *= warp.inside[:, None]
    flat = jacobian.reshape(count, 6, -1)
    normal = flat @ flat.transpose(0, 2, 1)
    diagonal = np.einsum("pii->pi", normal)
    normal = normal + np.eye(6, dtype=np.float32) * (1e-3 * diagonal[:, None, :] + 1e-6)
    solved = np.linalg.solve(normal, flat @ target.reshape(count, -1, 1))[..., 0]  # (P, 6)
    gain = np.where(np.abs(solved[:, 4:5]) > 0.2, solved[:, 4:5], np.inf)
    return np.asarray(np.clip(solved[:, :4] / gain, -0.1, 0.1), np.float32)


def _correlation(
    a: Floats,
    b: Floats,
    places: Floats,
    contrast: float,
    seen_a: Floats | None = None,
    seen_b: Floats | None = None,
) -> Floats:
    """Return the correlation (P,) of `a` and of `b` laid onto it, where they overlap.

    seen_a, seen_b (P, S, S): weights of their pixels. 0 where one has a standard deviation of less
    than `contrast`, or three quarters of it are not seen.
    """
    warp = _Warp(places, a.shape[1])
    weight = warp.inside
    if seen_a is not None and seen_b is not None:
        weight = weight * seen_a * warp(seen_b)
    total = weight.sum((1, 2))
    scale = np.maximum(total, 1)
    seen, target = (
        x - (np.einsum("pij,pij->p", x, weight) / scale)[:, None, None] for x in (warp(b), a)
    )
    seen *= weight
    squares = [np.einsum("pij,pij,pij->p", x, x, weight) / scale for x in (seen, target)]
    both = np.einsum("pij,pij->p", seen, target) / scale
    enough = (np.minimum(*squares) > contrast**2) & (total > LEAST_SEEN * weight[0].size)
    norm = np.sqrt(squares[0] * squares[1])
    found: Floats = np.divide(both, norm, out=np.zeros_like(both), where=enough)
    return found


def _detail(images: Floats) -> tuple[Floats, Floats]:
    """Return images (P, S, S) less what is coarse, over the strength of detail around; and weights.

    So a letter counts no more than a rib. The weights (P, S, S) are 0 in black surroundings and
    at their edge: the round field of an eye or a dermatoscope is the same in all images.
    """
    side = images.shape[1]
    black = _blurred((images < BLACK).astype(np.float32), side, EDGE)
    seen = (black < 0.02).astype(np.float32)
    detail = images - _blurred(images, side, DETAIL)
    strength = _blurred(detail**2, side, AROUND)
    evened: Floats = seen * detail / np.sqrt(strength + NOISE**2)
    return evened, seen


def _blurred(images: Floats, side: int, sigma: float) -> Floats:
    """Return images (P, S, S) averaged to (P, side, side) and blurred by a Gaussian."""
    kernel = _kernel(images.shape[1], side, sigma)
    across = (images.reshape(-1, images.shape[2]) @ kernel.T).reshape(*images.shape[:2], side)
    blurred: Floats = kernel @ across
    return blurred


@cache
def _kernel(length: int, side: int, sigma: float) -> Floats:
    """Return the matrix (side, length) of averaging and then blurring, renormalised at edges."""
    place = np.arange(side)
    weight = np.exp(-0.5 * ((place[:, None] - place) / max(sigma, 1e-3)) ** 2)
    mean = np.repeat(np.eye(side), length // side, axis=1) / (length // side)
    return np.asarray(weight / weight.sum(1, keepdims=True) @ mean, np.float32)


def _centres(side: int) -> Floats:
    """Return the centres of `side` pixels, in -0.5 ... 0.5 of the image."""
    return ((np.arange(side) + 0.5) / side - 0.5).astype(np.float32)


class _Warp:
    """Samples images (P, S, S) bilinearly at scale * y + shift; `inside` is 0 beyond them."""

    def __init__(self, places: Floats, side: int) -> None:
        at = _centres(side) * places[:, :2, None] + places[:, 2:, None]  # (P, 2, S)
        pixel = (at + 0.5) * side - 0.5
        within = ((pixel > -0.5) & (pixel < side - 0.5)).astype(np.float32)
        pixel = np.clip(pixel, 0, side - 1)
        hat = pixel[..., None] - np.arange(side, dtype=np.float32)
        np.abs(hat, out=hat)
        np.subtract(1, hat, out=hat)
        np.maximum(hat, 0, out=hat)
        self.rows, self.columns = hat[:, 0], hat[:, 1].transpose(0, 2, 1)
        self.inside: Floats = within[:, 0, :, None] * within[:, 1, None, :]

    def __call__(self, images: Floats) -> Floats:
        warped: Floats = self.rows @ images @ self.columns
        return warped
