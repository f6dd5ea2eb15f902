"""Resampling of groups: whole patients or lesions are drawn, never single images of one.

Images of one patient resemble each other; drawing them one by one would count the same
evidence several times and give intervals that are too narrow.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

REPLICATES = 2000
_CHUNK = 1 << 19  # numbers a chunk of replicates may hold: 4 MB in float64


def group_codes(groups: npt.ArrayLike | pd.Series) -> tuple[Ints, int]:
    """Return each image's group as an integer (N,) and the number of groups.

    Groups are numbered in sorted order, so that the order of the images does not matter. An
    image whose group is unknown (empty or missing) is a group of its own.
    """
    names = groups if isinstance(groups, pd.Series) else pd.Series(np.asarray(groups))
    codes, known = pd.factorize(names.where(names != "", None), sort=True)
    codes = codes.astype(np.int64)
    unknown = codes < 0
    codes[unknown] = len(known) + np.arange(unknown.sum())
    return codes, len(known) + int(unknown.sum())


def draw_groups(count: int, replicates: int, seed: int, width: int = 0) -> Iterator[Floats]:
    """Yield how often each of `count` groups is drawn, with replacement: chunks (r, count).

    The numbers depend on (count, replicates, seed) alone. `width` is the number of columns that
    the caller derives of each row, by which the rows of a chunk are bounded.
    """
    rng = np.random.default_rng(seed)
    rows = max(1, _CHUNK // max(count, width, 1))
    for start in range(0, replicates, rows):
        r = min(rows, replicates - start)
        drawn = rng.integers(0, count, size=(r, count)) + np.arange(r)[:, None] * count
        counts = np.bincount(drawn.ravel(), minlength=r * count).reshape(r, count)
        yield counts.astype(np.float64)


def resample_weights(
    groups: npt.ArrayLike | pd.Series, replicates: int = REPLICATES, seed: int = 0
) -> npt.NDArray[np.float32]:
    """Return how often each image stands in each bootstrap replicate: (R, N) counts.

    In one replicate all images of a group have the same count. The array takes 4 R N bytes;
    the functions of `diascope.evaluation.statistics` work through the same numbers in chunks.
    """
    codes, count = group_codes(groups)
    weights = np.empty((replicates, len(codes)), dtype=np.float32)
    if not len(codes):
        return weights
    start = 0
    for chunk in draw_groups(count, replicates, seed, width=len(codes)):
        weights[start : start + len(chunk)] = chunk[:, codes]
        start += len(chunk)
    return weights
