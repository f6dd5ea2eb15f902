"""A balanced draw of groups: exactly so many images a class to train, so many to test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.data.dataset import Dataset
from diascope.errors import UserError
from diascope.randomness import stable_id


def balanced_parts(dataset: Dataset, counts: Mapping[str, int], seed: int = 0) -> Dataset:
    """Return a draw with `counts[split]` images a class in each split, named in column `split`.

    Groups stay whole: in an order drawn by `seed` and the group's name alone, each class fills
    its splits one after the other, those named first with the images that fit, and a group that
    would overfill a split waits for the next. The rows keep their order. Raises `UserError` where
    a class has too few images, its groups do not add up, or one of them has several classes.
    """
    groups = dataset.groups.astype(str)
    side = np.full(len(dataset), "", dtype=object)
    for k, label in enumerate(dataset.classes):
        rows = np.flatnonzero(dataset.labels == k)
        if len(rows) < sum(counts.values()):
            raise UserError(
                f"{dataset.name}: cannot draw {sum(counts.values())} images of '{label}': there "
                f"are {len(rows)}"
            )
        for split, wanted in counts.items():
            rows = rows[side[rows] == ""]
            drawn = _fill(rows, groups, wanted, seed)
            if len(drawn) != wanted:
                raise UserError(
                    f"{dataset.name}: whole groups of '{label}' make {len(drawn)} images for "
                    f"{split}, not {wanted}: draw with another seed"
                )
            side[drawn] = split
    sides = pd.Series(side[side != ""]).groupby(groups[side != ""]).nunique()
    if (sides > 1).any():
        name = str(sides.idxmax()).partition(":")[2]
        raise UserError(f"{dataset.name}: group '{name}' has images of more than one class")
    part = replace(dataset, table=dataset.table.assign(split=side))
    return part.take(side != "")


def _fill(
    rows: NDArray[np.int64], groups: NDArray[np.str_], wanted: int, seed: int
) -> NDArray[np.int64]:
    """Return rows of whole groups, at most `wanted`, taken in the drawn order as they fit."""
    names, group, sizes = np.unique(groups[rows], return_inverse=True, return_counts=True)
    order = np.argsort([stable_id(f"draw/{seed}/{name}") for name in names])
    taken = np.zeros(len(names), np.bool_)
    left = wanted
    for g in order:
        if sizes[g] <= left:
            taken[g] = True
            left -= sizes[g]
    return rows[taken[group]]
