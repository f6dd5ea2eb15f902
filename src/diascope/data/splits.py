"""Train, validation and test: groups are never divided, classes are kept in proportion."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.data.dataset import Dataset
from diascope.errors import UserError
from diascope.files import write_text
from diascope.randomness import derive

NAMES = ("train", "val", "test")


@dataclass(frozen=True)
class Splits:
    """Three datasets that share no group; constructing one that does raises `UserError`."""

    train: Dataset
    val: Dataset
    test: Dataset

    def __post_init__(self) -> None:
        whole = pd.concat([pd.DataFrame({"group": part.groups}) for part in self], keys=NAMES)
        sides = whole.reset_index(level=0).drop_duplicates().rename(columns={"level_0": "split"})
        twice = sides[sides.group.duplicated(keep=False)]
        if len(twice):
            group = twice.group.iloc[0]
            where = " and ".join(twice.split[twice.group == group])
            kind, _, name = group.partition(":")
            raise UserError(
                f"{self.train.name}: {kind} '{name}' stands in {where} "
                f"({twice.group.nunique()} such): keep every group within one split"
            )

    def __iter__(self) -> Iterator[Dataset]:
        return iter((self.train, self.val, self.test))

    def refolded(self, fold: str, seed: int = 0) -> Splits:
        """Return splits whose train and val are joined and divided anew; test stays.

        `fold` "2/5" validates on the second of five parts (see `folds`); "all" trains on all, and
        validates on none. Raises `UserError` for another `fold`, and where a part is empty.
        """
        table = pd.concat([self.train.table, self.val.table], ignore_index=True)
        joined = replace(self.train, table=table)
        if fold == "all":
            return Splits(joined, joined.take(slice(0)), self.test)
        number, _, count = fold.partition("/")
        if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
            raise UserError(f"fold = '{fold}': write all, or 2/5 for the second of five parts")
        held = folds(joined, int(count), seed) == int(number) - 1
        return Splits(joined.take(~held), joined.take(held), self.test)

    def save(self, file: str | Path, fingerprints: Mapping[str, str] | None = None) -> None:
        """Write the CSV file `path,group,split`, a row an image.

        `fingerprints`, of some paths, add a column `content` by which the images are known again
        under another name.
        """
        tables = [part.table.assign(split=name) for name, part in zip(NAMES, self, strict=True)]
        table = pd.concat(tables)[["path", "group", "split"]].sort_values("path")
        if fingerprints is not None:
            table["content"] = table.path.map(fingerprints).fillna("")
        write_text(Path(file), table.to_csv(index=False, lineterminator="\n"))

    @classmethod
    def load(cls, file: str | Path, dataset: Dataset) -> Splits:
        """Return the splits of `dataset` that `save` wrote; rows of other images are ignored.

        Raises `UserError` where the file is no such table, or misses an image of `dataset`.
        """
        try:
            text = Path(file).read_text(encoding="utf-8")
            table = pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
        except (OSError, ValueError) as error:
            raise UserError(f"{file}: cannot be read as a split file ({_brief(error)})") from None
        missing = [column for column in ("path", "split") if column not in table]
        if missing:
            raise UserError(f"{file}: not a split file: it has no column '{missing[0]}'")
        if table.path.duplicated().any():
            twice = table.path[table.path.duplicated()].iloc[0]
            raise UserError(f"{file}: '{twice}' stands in two rows")
        split = dataset.table.path.map(table.set_index("path").split)
        if split.isna().any():
            raise UserError(
                f"{file}: {int(split.isna().sum())} images of {dataset.name} are not in it, such "
                f"as '{dataset.table.path[split.isna()].iloc[0]}': split the dataset again"
            )
        return _from_names(dataset, split, str(file))


def split(
    dataset: Dataset,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
) -> Splits:
    """Return train, val and test of `dataset`, of about `fractions` of each class.

    Groups stay whole, so each class is in proportion to within the size of its largest group
    (a group counts for its most frequent class). The result depends on `seed` and the rows,
    not on their order. Where the `split` column names official splits they are kept; official
    train and test without val give up a part of train, in the ratio of `fractions`.
    """
    shares = np.asarray(fractions, np.float64)
    if shares.shape != (3,) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise UserError(f"fractions {fractions}: give train, val and test shares that sum to 1")
    official = dataset.table.split
    if (official == "").all():
        return _from_sides(dataset, _assign(dataset, shares, seed))
    splits = _from_names(dataset, official, dataset.name)
    if len(splits.val) or not shares[1] or not len(splits.train):
        return splits
    shares = np.array([shares[0], shares[1], 0.0]) / (shares[0] + shares[1])
    sides = _assign(splits.train, shares, seed)
    return Splits(splits.train.take(sides == 0), splits.train.take(sides == 1), splits.test)


def folds(dataset: Dataset, k: int, seed: int = 0) -> NDArray[np.int64]:
    """Return the number from 0 to k - 1 of the fold of each image, (N,), for cross-validation.

    Groups stay whole, and each fold has 1/k of each class to within the size of its largest
    group. The result depends on `seed` and the rows, not on their order. Raises `UserError`
    where a fold would be empty.
    """
    if k < 2:
        raise UserError(f"folds = {k}: cross-validation takes at least 2")
    side = _assign(dataset, np.full(k, 1 / k), seed, "folds")
    if len(np.unique(side)) < k:
        raise UserError(
            f"{dataset.name}: {len(np.unique(dataset.groups.astype(str)))} groups of images in "
            f"{len(dataset.classes)} classes do not fill {k} folds; take fewer"
        )
    return side


def _assign(
    dataset: Dataset, shares: NDArray[np.float64], seed: int, what: str = "split"
) -> NDArray[np.int64]:
    """Return the number of the part of each image, (N,); 0, 1, 2 for train, val and test.

    Within a class the groups lie end to end in random order, drawn for this use (`what`), each
    as long as it has images; a group goes to the part in whose share of the whole length its
    middle lies.
    """
    names, group = np.unique(dataset.groups.astype(str), return_inverse=True)  # (G,), (N,)
    votes = np.zeros((len(names), len(dataset.classes) + 1), np.int64)  # (G, K + 1)
    np.add.at(votes, (group, dataset.labels), 1)
    stratum, size = votes.argmax(1), votes.sum(1)  # (G,)
    draw = np.random.default_rng(derive(seed, what)).random(len(names))
    side = np.zeros(len(names), np.int64)
    for k in np.unique(stratum):
        members = np.flatnonzero(stratum == k)
        members = members[np.argsort(draw[members])]
        middle = np.cumsum(size[members]) - size[members] / 2
        ends = np.cumsum(shares)[:-1] * size[members].sum()
        side[members] = (middle[:, None] > ends).sum(1)
        side[members] = _nonzero(side[members], shares)
    return side[group]


def _nonzero(side: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return `side` with members of splits of share 0 moved to the largest split."""
    return np.where(shares[side] > 0, side, shares.argmax())


def _from_names(dataset: Dataset, split: pd.Series[str], where: str) -> Splits:
    strange = split[~split.isin(NAMES)]
    if len(strange):
        path = dataset.table.path[strange.index[0]]
        raise UserError(
            f"{where}: {len(strange)} images have a split that is not train, val or test, such "
            f"as '{strange.iloc[0]}' of '{path}'"
        )
    return _from_sides(dataset, pd.Index(NAMES).get_indexer(pd.Index(split)))


def _from_sides(dataset: Dataset, side: NDArray[np.int64]) -> Splits:
    return Splits(*(dataset.take(side == k) for k in range(3)))


def _brief(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
