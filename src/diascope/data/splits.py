"""Train, validation and test: groups are never divided, classes are kept in proportion."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.data.dataset import Dataset
from diascope.data.strata import Stratify, assign, draw_per_class
from diascope.errors import UserError, nearest
from diascope.files import write_text

NAMES = ("train", "val", "test")
LEFT_OUT = "left-out"
Spanning = Literal["refuse", "leave-out"]


@dataclass(frozen=True)
class Splits:
    """Three datasets that share no group; constructing one that does raises `UserError`.

    `left_out` are images that stand in none of them, such as what a balanced draw leaves.
    """

    train: Dataset
    val: Dataset
    test: Dataset
    left_out: Dataset | None = None

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

    def refolded(self, fold: str, seed: int = 0, stratify: Stratify = "class") -> Splits:
        """Return splits whose train and val are joined and divided anew; test stays.

        `fold` "2/5" validates on the second of five parts (see `folds`); "all" trains on all, and
        validates on none. Raises `UserError` for another `fold`, and where a part is empty.
        """
        table = pd.concat([self.train.table, self.val.table], ignore_index=True)
        joined = replace(self.train, table=table)
        if fold == "all":
            return replace(self, train=joined, val=joined.take(slice(0)))
        number, _, count = fold.partition("/")
        if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
            raise UserError(f"fold = '{fold}': write all, or 2/5 for the second of five parts")
        held = folds(joined, int(count), seed, stratify) == int(number) - 1
        return replace(self, train=joined.take(~held), val=joined.take(held))

    def save(self, file: str | Path, fingerprints: Mapping[str, str] | None = None) -> None:
        """Write the CSV file `path,group,split`, a row an image; "left-out" is in no split.

        `fingerprints`, of some paths, add a column `content` by which the images are known again
        under another name.
        """
        tables = [part.table.assign(split=name) for name, part in zip(NAMES, self, strict=True)]
        if self.left_out is not None:
            tables.append(self.left_out.table.assign(split=LEFT_OUT))
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
        out = (split == LEFT_OUT).to_numpy()
        splits = _from_names(dataset.take(~out), split[~out].reset_index(drop=True), str(file))
        return replace(splits, left_out=dataset.take(out)) if out.any() else splits


def split(
    dataset: Dataset,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    *,
    stratify: Stratify = "class",
    hold_out: str | None = None,
    spanning: Spanning = "refuse",
    per_class: tuple[int, int, int] | None = None,
) -> Splits:
    """Return train, val and test of `dataset`, of about `fractions` of each class.

    Groups stay whole, so each class is in proportion to within the size of its largest group
    (a group counts for its most frequent class). The result depends on `seed` and the rows,
    not on their order. Where the `split` column names official splits they are kept; official
    train and test without val give up a part of train, in the ratio of `fractions`.

    `stratify` "class+source" keeps the sources of each class in proportion as well, to within
    twice the largest group. `hold_out` names a source whose images are test, all of them and no
    others; the rest is train and val, less what is officially test. Groups with images in that
    source and in another are refused, or with `spanning` "leave-out" their images in other sources
    are in no split. `per_class` draws that many images of each class for train, val and test
    instead of `fractions`: P1's balanced subset is (800, 0, 299). Raises `UserError` where the
    dataset cannot be split so.
    """
    shares = np.asarray(fractions, np.float64)
    if shares.shape != (3,) or (shares < 0).any() or not np.isclose(shares.sum(), 1):
        raise UserError(f"fractions {fractions}: give train, val and test shares that sum to 1")
    official = bool((dataset.table.split != "").any())
    if per_class is not None and hold_out is None and not official:
        return _from_sides(dataset, draw_per_class(dataset, per_class, seed))
    if hold_out is not None:
        splits = _held_out(dataset, hold_out, spanning, shares, seed, stratify)
    elif official:
        splits = _official(dataset, shares, seed, stratify)
    else:
        splits = _from_sides(dataset, assign(dataset, shares, seed, stratify=stratify))
    return splits if per_class is None else _drawn(splits, per_class, seed)


def _official(
    dataset: Dataset, shares: NDArray[np.float64], seed: int, stratify: Stratify
) -> Splits:
    """Return the splits of the `split` column; val is a part of train where it names none."""
    splits = _from_names(dataset, dataset.table.split, dataset.name)
    if len(splits.val) or not shares[1] or not len(splits.train):
        return splits
    shares = np.array([shares[0], shares[1], 0.0]) / (shares[0] + shares[1])
    sides = assign(splits.train, shares, seed, stratify=stratify)
    return Splits(splits.train.take(sides == 0), splits.train.take(sides == 1), splits.test)


def _held_out(
    dataset: Dataset,
    source: str,
    spanning: Spanning,
    shares: NDArray[np.float64],
    seed: int,
    stratify: Stratify,
) -> Splits:
    """Return splits whose test is all of `source` and nothing else."""
    sources = dataset.table.source.to_numpy(str)
    held = sources == source
    if not source or not held.any():
        known = nearest(source, set(sources.tolist()) - {""}) if any(sources) else "it has none."
        raise UserError(f"{dataset.name}: hold_out '{source}': no such source: {known}")
    if spanning not in get_args(Spanning):
        raise UserError(f"spanning '{spanning}': {nearest(spanning, get_args(Spanning))}")
    spans = np.isin(dataset.groups.astype(str), dataset.groups[held].astype(str)) & ~held
    if spans.any() and spanning == "refuse":
        group = dataset.groups[spans][0].partition(":")[2]
        count = len(set(dataset.groups[spans]))
        raise UserError(
            f"{dataset.name}: {count} groups, such as '{group}', have images in '{source}' and "
            "elsewhere: spanning=leave-out takes those elsewhere out of every split"
        )
    out = spans | (~held & (dataset.table.split == "test").to_numpy())
    rest = dataset.take(~held & ~out)
    if not len(rest) or not shares[:2].sum():
        what = "no image is" if not len(rest) else f"fractions {tuple(shares.tolist())}: none is"
        raise UserError(f"{dataset.name}: hold_out '{source}': {what} left to train on")
    test, left_out = dataset.take(held), dataset.take(out) if out.any() else None
    shares = np.array([shares[0], shares[1], 0.0]) / shares[:2].sum()
    if (rest.table.split != "").any():
        splits = _official(rest, shares, seed, stratify)
    else:
        splits = _from_sides(rest, assign(rest, shares, seed, stratify=stratify))
    return replace(splits, test=test, left_out=left_out)


def _drawn(splits: Splits, per_class: tuple[int, int, int], seed: int) -> Splits:
    """Return splits with so many images of each class, drawn from what each part has."""
    if min(per_class) < 0 or not sum(per_class):
        raise UserError(f"per_class {per_class}: give images a class of train, val and test")
    parts = [
        part.balanced(count, seed) if count else part.take(slice(0))
        for part, count in zip(splits, per_class, strict=True)
    ]
    whole = [*splits, *([splits.left_out] if splits.left_out is not None else [])]
    table = pd.concat([part.table for part in whole], ignore_index=True)
    kept = pd.concat([part.table.path for part in parts])
    left_out = replace(splits.train, table=table[~table.path.isin(kept)].reset_index(drop=True))
    train, val, test = parts
    return Splits(train, val, test, left_out)


def folds(
    dataset: Dataset, k: int, seed: int = 0, stratify: Stratify = "class"
) -> NDArray[np.int64]:
    """Return the number from 0 to k - 1 of the fold of each image, (N,), for cross-validation.

    Groups stay whole, and each fold has 1/k of each class to within the size of its largest
    group; with "class+source" of the sources of each class, too, to within twice that. The result
    depends on `seed` and the rows, not on their order. Raises `UserError` where a fold would be
    empty.
    """
    if k < 2:
        raise UserError(f"folds = {k}: cross-validation takes at least 2")
    side = assign(dataset, np.full(k, 1 / k), seed, "folds", stratify)
    if len(np.unique(side)) < k:
        raise UserError(
            f"{dataset.name}: {len(np.unique(dataset.groups.astype(str)))} groups of images in "
            f"{len(dataset.classes)} classes do not fill {k} folds; take fewer"
        )
    return side


def _from_names(dataset: Dataset, split: pd.Series[str], where: str) -> Splits:
    strange = split[~split.isin(NAMES)]
    if len(strange):
        path = dataset.table.path[strange.index[0]]
        raise UserError(
            f"{where}: {len(strange)} images have a split that is not train, val or test, such "
            f"as '{strange.iloc[0]}' of '{path}'"
        )
    side = pd.Index(NAMES).get_indexer(pd.Index(split)).astype(np.int64)
    return _from_sides(dataset, side)


def _from_sides(dataset: Dataset, side: NDArray[np.int64]) -> Splits:
    """Return the splits of `side` (N,); images of -1 are left out."""
    left_out = dataset.take(side < 0) if (side < 0).any() else None
    train, val, test = (dataset.take(side == k) for k in range(3))
    return Splits(train, val, test, left_out)


def _brief(error: Exception) -> str:
    return getattr(error, "strerror", None) or " ".join(str(error).split())
