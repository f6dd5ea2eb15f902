"""What the checks of data look at: images seen once, their splits, other datasets."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diascope.audit.datachecks.copies import Copies, find_copies
from diascope.audit.datachecks.looking import Looked
from diascope.data import Dataset
from diascope.data.readers import read_table
from diascope.errors import UserError

Names = NDArray[np.object_]


@dataclass(frozen=True, eq=False)
class Evidence:
    """The images `looked` at, the split of each, and those of datasets `beside` it.

    sides (N,): train, val, test, or "" where unknown. beside: datasets meant to be others, such as
    another hospital's. left_out: why images of this dataset were kept out of an audit, and how
    many. trained_on: the names of other datasets that audited models were trained on.
    """

    looked: Looked
    sides: Names
    beside: tuple[Looked, ...] = ()
    left_out: dict[str, int] = field(default_factory=dict)
    trained_on: tuple[str, ...] = ()
    seed: int = 0

    @property
    def dataset(self) -> Dataset:
        """The dataset that is checked."""
        return self.looked.dataset

    @cached_property
    def copies(self) -> Copies:
        """The copies among the images of the dataset and of those beside it, numbered through."""
        return find_copies([self.looked, *self.beside], self.seed)

    @cached_property
    def own(self) -> NDArray[np.bool_]:
        """Which pairs of `copies` (P,) lie within the dataset itself."""
        return np.asarray((self.copies.pairs < len(self.looked)).all(1))

    @cached_property
    def where(self) -> NDArray[np.int64]:
        """The number of the dataset, 0 for the checked one, of each image as numbered through."""
        every = [self.looked, *self.beside]
        return np.repeat(np.arange(len(every)), [len(each) for each in every])

    @cached_property
    def names(self) -> list[str]:
        """The name of each image as numbered through; of other datasets with the dataset's."""
        first = self.dataset.table.path.tolist()
        rest = [f"{b.dataset.name}: {path}" for b in self.beside for path in b.dataset.table.path]
        return [*first, *rest]

    def files(self, clusters: Iterable[NDArray[np.int64]]) -> tuple[tuple[str, ...], ...]:
        """Return the names of the images of each cluster."""
        return tuple(tuple(self.names[row] for row in cluster) for cluster in clusters)

    def paths(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> tuple[tuple[str, ...], ...]:
        """Return the paths of some rows of the dataset, each by itself."""
        return tuple((path,) for path in self.dataset.table.path.to_numpy()[rows])


def sides_of(dataset: Dataset, file: str | Path | None = None) -> Names:
    """Return the split of each image (N,): of a split file, else of the official column.

    The file has the columns path and split, and any names of splits: groups that it divides are
    for a check to find. Raises `UserError` where it is no such file, or holds none of the images.
    """
    if file is None:
        return dataset.table.split.to_numpy(object)
    table = read_table(Path(file))
    for column in ("path", "split"):
        if column not in table:
            raise UserError(f"{file}: not a split file: it has no column '{column}'")
    table = table.drop_duplicates("path")
    sides = dataset.table.path.map(table.set_index("path").split)
    if sides.isna().all():
        raise UserError(f"{file}: holds no image of {dataset.name}: give the split of these data")
    return sides.fillna("").replace("left-out", "").to_numpy(object)
