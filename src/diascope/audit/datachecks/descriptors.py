"""A perceptual descriptor learnt from the images themselves.

Images of one kind look alike: two chest X-rays share most of the bits of a general perceptual
hash. Here the directions are chosen for the data at hand, as Fisher's discriminant chooses them
(Fisher 1936): those along which different images lie far apart, compared with copies of one image
that are cropped, brightened or noisy. Copies for that are made from a sample of the thumbnails.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from diascope.audit.datachecks.areas import Floats, averaged, whole

SIDE = 16
DIRECTIONS = 32
SAMPLE = 1500
COPIES = 6
CROP = 0.06  # at most this share of the image is cut from each side of a copy
CHUNK = 2048


@dataclass(frozen=True, eq=False)
class Descriptor:
    """A linear map of normalised thumbnails: `axes` (256, D), `centre` (256,).

    `spread` (D,) is the standard deviation of different images along each direction, where copies
    of one image have about 1. `reach` is the squared distance within which nearly all copies of an
    image lie.
    """

    axes: Floats
    centre: Floats
    spread: Floats
    reach: float

    def __call__(self, thumbnails: NDArray[np.uint8]) -> Floats:
        """Return the places (N, D) of thumbnails (N, 64, 64)."""
        places = np.empty((len(thumbnails), self.axes.shape[1]), np.float32)
        for start in range(0, len(thumbnails), CHUNK):
            part = np.asarray(thumbnails[start : start + CHUNK])
            cells = normalised(averaged(part, whole(len(part)), SIDE))
            places[start : start + CHUNK] = (cells - self.centre) @ self.axes
        return places


def normalised(cells: Floats) -> Floats:
    """Return images (N, S, S) as vectors (N, S * S) of mean 0 and mean square 1.

    What has no contrast becomes 0.
    """
    flat = cells.reshape(len(cells), -1)
    flat = flat - flat.mean(1, keepdims=True)
    scale = np.sqrt((flat**2).mean(1, keepdims=True))
    result: Floats = np.divide(flat, scale, out=np.zeros_like(flat), where=scale > 1e-3)
    return result


def learn(thumbnails: NDArray[np.uint8], seed: int = 0) -> Descriptor:
    """Return the descriptor for `thumbnails` (N, 64, 64), learnt from at most 1500 of them."""
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(thumbnails))[:SAMPLE]
    sample = np.asarray(thumbnails[np.sort(rows)])
    original = normalised(averaged(sample, whole(len(sample)), SIDE))
    copies = np.stack([original, *(_copies(sample, rng) for _ in range(COPIES))])  # (V, n, 256)
    means = copies.mean(0)
    within = _covariance((copies - means).reshape(-1, means.shape[1]))
    between = _covariance(means - means.mean(0))
    size = len(within)
    within += np.eye(size) * (0.02 * np.trace(within) / size + 1e-9)
    ratios, axes = scipy.linalg.eigh(between, within, subset_by_index=[size - DIRECTIONS, size - 1])
    axes = axes[:, ::-1].astype(np.float32)
    centre = means.mean(0)
    places = (copies - centre) @ axes  # (V, n, D)
    distances = ((places[1:] - places[0]) ** 2).sum(-1)
    reach = 2 * float(np.quantile(distances, 0.995))
    spread = np.sqrt(ratios[::-1].clip(0) + 1).astype(np.float32)
    return Descriptor(axes, centre, spread, reach)


def _copies(sample: NDArray[np.uint8], rng: np.random.Generator) -> Floats:
    """Return one changed copy of each image, as vectors: cropped, recoloured, noisy."""
    count = len(sample)
    cut = rng.uniform(0, CROP, (count, 4)).astype(np.float32)
    boxes = np.concatenate([cut[:, :2], 1 - cut[:, 2:]], 1)
    cells = averaged(sample, boxes, SIDE) / 255
    gamma, gain = (np.exp(rng.uniform(-0.25, 0.25, (count, 1, 1))) for _ in range(2))
    noise = rng.normal(0, 0.01, cells.shape)
    changed = np.clip(gain * cells**gamma + noise, 0, 1)
    return normalised(changed.astype(np.float32))


def _covariance(vectors: Floats) -> NDArray[np.float64]:
    vectors = vectors.astype(np.float64)
    return np.asarray(vectors.T @ vectors / max(len(vectors), 1))
