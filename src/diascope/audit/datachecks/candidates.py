"""Pairs of images that may be copies, found by hashing and without comparing all with all.

The sign of a projection is a bit. The bits are cut into bands (Broder 1997, Indyk and Motwani
1998): a pair is compared where all bits of at least one band agree. A band has about as many bits
as there are doublings of the number of images, so that a bucket holds one or two images whatever
that number is, and within a crowded bucket an image is compared with its nearest in one more
projection only. So the comparisons grow as N: at most `BANDS * WINDOW` an image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import NDArray

from diascope.audit.datachecks.areas import Floats
from diascope.audit.datachecks.descriptors import Descriptor

BANDS = 32
WINDOW = 24
NEAREST = 8
CHUNK = 1 << 18


@dataclass(frozen=True, eq=False)
class Candidates:
    """Pairs (P, 2) of rows, the smaller first, and how many `comparisons` were made."""

    pairs: NDArray[np.int64]
    comparisons: int


def find_candidates(places: Floats, descriptor: Descriptor, seed: int = 0) -> Candidates:
    """Return the pairs of `places` (N, D) that share a bucket and lie within reach.

    Of more than 8 pairs with one image, only those among the 8 nearest of either image are kept.
    """
    count = len(places)
    scaled = (places / descriptor.spread).astype(np.float32)
    bits = max(0, int(np.ceil(np.log2(max(count, 1)))) - 2)
    bits = min(bits, places.shape[1] - 1)
    rng = np.random.default_rng(seed)
    found, apart, comparisons = [np.zeros(0, np.int64)], [np.zeros(0, np.float32)], 0
    for _ in range(BANDS):
        turned: Floats = scaled @ _rotation(places.shape[1], bits + 1, rng)  # (N, bits + 1)
        key = _keys(turned[:, :bits])
        order = np.lexsort((turned[:, bits], key))
        for near, far in _neighbours(key[order]):
            first, second = order[near], order[far]
            comparisons += len(first)
            distance = _distances(places, first, second)
            close = distance <= descriptor.reach
            low = np.minimum(first[close], second[close])
            found.append(low * count + np.maximum(first[close], second[close]))
            apart.append(distance[close])
    codes, once = np.unique(np.concatenate(found), return_index=True)
    pairs = np.stack(np.divmod(codes, max(count, 1)), 1)
    return Candidates(pairs[_nearest(pairs, np.concatenate(apart)[once])], comparisons)


def _rotation(size: int, columns: int, rng: np.random.Generator) -> Floats:
    """Return (size, columns) orthonormal columns, drawn uniformly."""
    drawn = scipy.stats.ortho_group.rvs(size, random_state=rng)
    return np.asarray(drawn[:, :columns], np.float32)


def _keys(turned: Floats) -> NDArray[np.int64]:
    """Return a number for each row's bits (N, B): above the median or not."""
    bits = turned > np.median(turned, axis=0) if turned.shape[1] else turned > 0
    return bits @ (1 << np.arange(turned.shape[1], dtype=np.int64))


def _neighbours(key: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return the positions of equal entries of sorted `key` that lie up to `WINDOW` apart."""
    pairs = []
    for step in range(1, WINDOW + 1):
        near = np.flatnonzero(key[step:] == key[:-step])
        if not len(near):
            break
        pairs.append((near, near + step))
    return pairs


def _distances(
    places: Floats, first: NDArray[np.int64], second: NDArray[np.int64]
) -> NDArray[np.float32]:
    """Return the squared distance (n,) of each two places."""
    distance = np.empty(len(first), np.float32)
    for start in range(0, len(first), CHUNK):
        part = slice(start, start + CHUNK)
        apart = places[first[part]] - places[second[part]]
        distance[part] = np.einsum("nd,nd->n", apart, apart)
    return distance


def _nearest(pairs: NDArray[np.int64], distance: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Return which pairs (P, 2) are among the nearest of one of their images."""
    image, distances = pairs.T.ravel(), np.tile(distance, 2)  # (2 P,)
    order = np.lexsort((distances, image))
    starts = np.flatnonzero(np.diff(image[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    near = np.empty(len(order), np.bool_)
    near[order] = rank < NEAREST
    return np.asarray(near.reshape(2, -1).any(0))
