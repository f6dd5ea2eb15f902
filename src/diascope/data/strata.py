"""Dealing whole groups of images to parts, so that each part has its share of every class."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from diascope.data.dataset import Dataset
from diascope.errors import UserError, nearest
from diascope.randomness import derive

Stratify = Literal["class", "class+source"]


def assign(
    dataset: Dataset,
    shares: NDArray[np.float64],
    seed: int,
    what: str = "split",
    stratify: Stratify = "class",
) -> NDArray[np.int64]:
    """Return the number of the part of each image, (N,); 0, 1, 2 for train, val and test.

    "class": within a class the groups lie end to end in random order, drawn for this use
    (`what`), each as long as it has images; a group goes to the part in whose share of the whole
    length its middle lies. "class+source": within a class the groups come source by source, in
    random order within one, and each goes to the part that has least of what is due to it by then.
    A group counts for its most frequent class and source. Raises `UserError` for no sources.
    """
    if stratify not in get_args(Stratify):
        raise UserError(f"stratify '{stratify}': {nearest(stratify, get_args(Stratify))}")
    names, group = np.unique(dataset.groups.astype(str), return_inverse=True)  # (G,), (N,)
    size = np.bincount(group, minlength=len(names))  # (G,)
    stratum = _majority(group, len(names), dataset.labels, len(dataset.classes))
    draw = np.random.default_rng(derive(seed, what)).random(len(names))
    source = _sources(dataset, group) if stratify == "class+source" else None
    side = np.zeros(len(names), np.int64)
    for k in np.unique(stratum):
        members = np.flatnonzero(stratum == k)
        if source is None:
            members = members[np.argsort(draw[members])]
            side[members] = _cut(size[members], shares)
        else:
            members = members[np.lexsort((draw[members], source[members]))]
            side[members] = _dealt(size[members].tolist(), shares)
    return side[group]


def _majority(
    group: NDArray[np.int64], groups: int, label: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return the most frequent of `count` labels of each group (G,); `count` stands for -1."""
    votes = np.zeros((groups, count + 1), np.int64)  # (G, K + 1)
    np.add.at(votes, (group, label), 1)
    most: NDArray[np.int64] = votes.argmax(1)
    return most


def _sources(dataset: Dataset, group: NDArray[np.int64]) -> NDArray[np.int64]:
    names, source = np.unique(dataset.table.source.to_numpy(str), return_inverse=True)
    if not any(names):
        raise UserError(f"{dataset.name}: its images name no source; stratify by class alone")
    return _majority(group, int(group.max(initial=-1)) + 1, source, len(names))


def _cut(size: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the part (G,) in whose share the middle of each group lies.

    Groups in parts of share 0 are moved to the largest part.
    """
    middle = np.cumsum(size) - size / 2
    ends = np.cumsum(shares)[:-1] * size.sum()
    side = (middle[:, None] > ends).sum(1)
    return np.where(shares[side] > 0, side, shares.argmax())


def _dealt(sizes: Iterable[int], shares: NDArray[np.float64]) -> list[int]:
    """Return the part of each group, dealt to the part that is owed most.

    At any moment each of three parts, or of equal parts, has its share of what was dealt to
    within the largest group; so it has of any run of groups, to within twice that.
    """
    owed, side = np.zeros(len(shares)), []
    for size in sizes:
        owed += size * shares
        part = int(owed.argmax())
        owed[part] -= size
        side.append(part)
    return side


def draw_per_class(dataset: Dataset, counts: tuple[int, int, int], seed: int) -> NDArray[np.int64]:
    """Return the part of each image (N,), -1 for none, so that parts have `counts` of each class.

    Groups are taken whole, in random order, where they fit into what a part still lacks, into
    test first, then val, then train. Where none fits, one more is taken, and of the images of a
    class that are then too many those whose paths come last stay out. The result depends on
    `seed` and the rows, not on their order. Raises `UserError` where a class has too few images.
    """
    if min(counts) < 0 or not sum(counts):
        raise UserError(f"per_class {counts}: give images a class of train, val and test")
    names, group = np.unique(dataset.groups.astype(str), return_inverse=True)  # (G,), (N,)
    classes = len(dataset.classes)
    has = np.zeros((len(names), classes + 1), np.int64)
    np.add.at(has, (group, dataset.labels), 1)
    has = has[:, :classes]  # (G, K); images without a label are never drawn
    order = np.argsort(np.random.default_rng(derive(seed, "per class")).random(len(names)))
    side = np.full(len(names), -1)
    lacks = np.repeat(np.array(counts)[:, None], classes, 1)  # (3, K)
    for whole in (True, False):
        for part in (2, 1, 0):
            for g in order[(side[order] < 0) & has[order].any(1)]:
                if not lacks[part].any():
                    break
                takes = np.minimum(has[g], lacks[part])
                if takes.any() and (not whole or (takes == has[g]).all()):
                    side[g] = part
                    lacks[part] -= takes
    if lacks.any():
        part, k = np.argwhere(lacks)[0]
        raise UserError(
            f"{dataset.name}: per_class {counts}: '{dataset.classes[k]}' has "
            f"{int((dataset.labels == k).sum())} images in whole groups, {lacks[part, k]} too few"
        )
    return _trimmed(dataset, side[group], counts)


def _trimmed(
    dataset: Dataset, side: NDArray[np.int64], counts: tuple[int, int, int]
) -> NDArray[np.int64]:
    """Return `side` (N,) with no more than `counts` images of a class in a part, by path."""
    side = np.where(dataset.labels < 0, -1, side)
    order = np.argsort(dataset.table.path.to_numpy(str))
    for part, count in enumerate(counts):
        for k in range(len(dataset.classes)):
            members = order[(side[order] == part) & (dataset.labels[order] == k)]
            side[members[count:]] = -1
    return side
