"""Copies among the images of one or more datasets: exact ones, and ones that were changed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from diascope.audit.datachecks.alignment import similarities
from diascope.audit.datachecks.candidates import find_candidates
from diascope.audit.datachecks.descriptors import learn
from diascope.audit.datachecks.looking import Looked
from diascope.data.joined import Stacked
from diascope.data.pixels import Rows

SMALLEST = 40  # pixels of the shorter side; smaller images have too little detail to compare
SIMILAR = 0.8  # correlation of details from which two images are taken for copies


@dataclass(frozen=True, eq=False)
class Copies:
    """Pairs (P, 2) of copies, the smaller number first, by the images' numbers.

    Images of several datasets are numbered through. similarity (P,): of their details, once
    aligned; 1 where `exact` (P,), the same pixels. Equal images appear as a chain, not as all
    pairs. comparisons: how many pairs of places were compared to find them; aligned: how many
    pairs of thumbnails.
    """

    pairs: NDArray[np.int64]
    similarity: NDArray[np.float32]
    exact: NDArray[np.bool_]
    comparisons: int
    aligned: int

    def clusters(self, among: NDArray[np.bool_] | None = None) -> list[NDArray[np.int64]]:
        """Return the sets of images that some of the pairs (P,) link, each sorted."""
        pairs = self.pairs if among is None else self.pairs[among]
        if not len(pairs):
            return []
        members, codes = np.unique(pairs, return_inverse=True)
        codes = codes.reshape(pairs.shape)
        size = len(members)
        graph = coo_array((np.ones(len(codes)), (codes[:, 0], codes[:, 1])), shape=(size, size))
        _, part = connected_components(graph, directed=False)
        order = np.argsort(part, kind="stable")
        ends = np.flatnonzero(np.diff(part[order])) + 1
        found = np.split(members[order], ends)
        return sorted(found, key=lambda rows: int(rows[0]))


def find_copies(looked: Sequence[Looked], seed: int = 0) -> Copies:
    """Return the copies among the images of all of `looked`.

    Of images with the same pixels one goes on to the search for changed copies, unless it is too
    small for that. An oblong image takes part twice, as a whole and by its central square.
    """
    contents = [content for each in looked for content in each.contents]
    exact, firsts = _chains(contents)
    numbers, thumbnails = _entries(looked, firsts)
    if len(numbers) > 1:
        descriptor = learn(thumbnails, seed)
        found = find_candidates(descriptor(thumbnails), descriptor, seed)
        oblong = np.concatenate([each.oblong for each in looked])
        rows = found.pairs[_sensible(found.pairs, numbers, oblong)]
        alike, comparisons = similarities(thumbnails, rows), found.comparisons
    else:
        rows, alike, comparisons = np.zeros((0, 2), np.int64), np.zeros(0, np.float32), 0
    same = alike >= SIMILAR
    near, best = _best(np.sort(numbers[rows[same]].reshape(-1, 2), 1), alike[same])
    return Copies(
        np.concatenate([exact, near]),
        np.concatenate([np.ones(len(exact), np.float32), best]),
        np.arange(len(exact) + len(near)) < len(exact),
        comparisons,
        len(rows),
    )


def _chains(contents: list[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return pairs (E, 2) of each image and the last before it with its pixels, and the firsts."""
    last: dict[str, int] = {}
    pairs, firsts = [], []
    for number, content in enumerate(contents):
        if not content:
            continue
        if content in last:
            pairs.append((last[content], number))
        else:
            firsts.append(number)
        last[content] = number
    return np.array(pairs, np.int64).reshape(-1, 2), np.array(firsts, np.int64)


def _entries(
    looked: Sequence[Looked], firsts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
    """Return the images' numbers (M,) and thumbnails (M, 64, 64) that take part in the search."""
    count = sum(len(each) for each in looked)
    stacked = Stacked([each.thumbnails for each in looked] + [each.centres for each in looked])
    oblong = np.concatenate([each.oblong for each in looked])
    shorter = np.concatenate([each.sizes[:, :2].min(1, initial=1 << 30) for each in looked])
    firsts = firsts[shorter[firsts] >= SMALLEST]
    centres = firsts[oblong[firsts]] if not oblong[firsts].all() else firsts[:0]
    index = np.concatenate([firsts, count + centres])
    return index % count, cast("NDArray[np.uint8]", Rows(cast("NDArray[np.uint8]", stacked), index))


def _sensible(
    pairs: NDArray[np.int64], numbers: NDArray[np.int64], oblong: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Return which pairs (P,) of entries are of two wholes, or of a centre and a square image."""
    last_whole = np.flatnonzero(np.diff(numbers) < 0)
    wholes = int(last_whole[0]) + 1 if len(last_whole) else len(numbers)
    whole_too = (pairs < wholes).all(1)
    one_centre = (pairs[:, 0] < wholes) & (pairs[:, 1] >= wholes)
    return np.asarray(whole_too | (one_centre & ~oblong[numbers[pairs[:, 0]]]))


def _best(
    pairs: NDArray[np.int64], alike: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return each pair once, with its greatest similarity."""
    order = np.lexsort((-alike, pairs[:, 1], pairs[:, 0]))
    pairs, alike = pairs[order], alike[order]
    first = np.r_[True, (pairs[1:] != pairs[:-1]).any(1)][: len(pairs)]
    return pairs[first], alike[first]
