"""A dataset: a table with one row an image, and the reader that turns a row into pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.errors import UserError, nearest
from diascope.randomness import stable_id

if TYPE_CHECKING:
    from diascope.data.splits import Splits

COLUMNS = ("path", "label", "group", "source", "split", "mask", "boxes")


class ReadError(UserError):
    """One image or mask that cannot be read: `path`, and the `reason`."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path, self.reason = path, reason

    def __reduce__(self) -> tuple[type[ReadError], tuple[str, str]]:
        return type(self), (self.path, self.reason)


@runtime_checkable
class Reader(Protocol):
    """Turns the `path` and `mask` columns of a row into pixels; safe to call from any thread."""

    def image(self, path: str) -> NDArray[np.uint8]:
        """Return the image of a row's `path`, (H, W, 3) or (H, W, 1); raises `ReadError`."""

    def mask(self, path: str) -> NDArray[np.bool_]:
        """Return the region of a row's `mask` entry, (H, W); raises `ReadError`."""

    def stamp(self, path: str) -> str:
        """Return a cheap fingerprint of a `path` or `mask` entry; it changes when pixels do.

        An absent source has a stamp too: it raises nothing.
        """


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images with labels: `table` has a row an image, `classes` orders the labels.

    Columns of `table` (text, "" where unknown): `path`; `label`, a class name; `group`, the
    patient or lesion, never divided by a split; `source`, the hospital or device; `split`, an
    official train, val or test; `mask`, the region's path; `boxes`, JSON [[x, y, w, h], ...]
    in pixels of the image, whose union is the region where there is no mask. Further columns are
    kept. `notes` say, a line each, what the opener left out and what its tables cannot tell.
    """

    name: str
    table: pd.DataFrame
    classes: tuple[str, ...]
    reader: Reader
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        columns: Mapping[str, Sequence[str] | pd.Series],
        classes: Sequence[str],
        reader: Reader,
    ) -> Dataset:
        """Return a dataset from its columns; the ones not given are "".

        Raises `UserError` for no rows, or for a path that stands in two rows.
        """
        lists = {
            key: value.tolist() if isinstance(value, pd.Series) else list(value)
            for key, value in columns.items()
        }
        table = pd.DataFrame(lists, dtype=str)
        if table.empty:
            raise UserError(f"{name}: the dataset has no images")
        for column in COLUMNS:
            table[column] = table[column].fillna("") if column in table else ""
        rest = [column for column in table if column not in COLUMNS]
        repeated = table.path[table.path.duplicated()]
        if len(repeated):
            raise UserError(
                f"{name}: {len(repeated)} paths stand in more than one row, such as "
                f"'{repeated.iloc[0]}': keep one row an image"
            )
        return cls(name, table[[*COLUMNS, *rest]], tuple(classes), reader)

    def __len__(self) -> int:
        return len(self.table)

    def __repr__(self) -> str:
        counts = ", ".join(f"{label} {n}" for label, n in self.counts.items())
        return f"Dataset({self.name!r}, {len(self)} images: {counts})"

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """The class indices, (N,); -1 where the label is none of `classes`."""
        return pd.Index(self.classes).get_indexer(pd.Index(self.table.label)).astype(np.int64)

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """One stable number an image, (N,), of the dataset's name and the path alone."""
        return np.array([stable_id(f"{self.name}/{path}") for path in self.table.path], np.int64)

    @cached_property
    def groups(self) -> NDArray[np.object_]:
        """The group of each image, (N,), of type str; one without a group is its own, by path."""
        own = "path:" + self.table.path.astype(object)
        return np.where(self.table.group == "", own, "group:" + self.table.group.astype(object))

    @cached_property
    def entries(self) -> list[tuple[str, str, str]]:
        """The path, mask and boxes of each image; far faster to look up than rows of the table.

        Boxes are "" where a mask takes their place.
        """
        paths, masks, boxes = (
            self.table[column].astype(str).tolist() for column in ("path", "mask", "boxes")
        )
        boxes = ["" if mask else box for mask, box in zip(masks, boxes, strict=True)]
        return list(zip(paths, masks, boxes, strict=True))

    @property
    def counts(self) -> dict[str, int]:
        """The number of images of each class, in the order of `classes`."""
        return {label: int((self.labels == k).sum()) for k, label in enumerate(self.classes)}

    def take(self, rows: Any) -> Dataset:
        """Return the dataset of some rows, by integer positions, a boolean mask or a slice."""
        table = self.table.iloc[np.arange(len(self))[rows]].reset_index(drop=True)
        return replace(self, table=table)

    def restrict(self, classes: Sequence[str]) -> Dataset:
        """Return the images of `classes`, in that order of classes.

        Rows whose label is no class of this dataset stay, to be found by `verify`.
        """
        for label in classes:
            if label not in self.classes:
                raise UserError(f"{self.name}: no class '{label}': {nearest(label, self.classes)}")
        if not classes or len(set(classes)) < len(classes):
            raise UserError(f"{self.name}: name each class once: {', '.join(classes) or 'none'}")
        keep = self.table.label.isin(classes) | (self.labels < 0)
        return replace(self.take(keep.to_numpy()), classes=tuple(classes))

    def balanced(self, per_class: int, seed: int = 0) -> Dataset:
        """Return `per_class` images of each class, drawn by `seed`; row order is kept.

        An image's place in the draw depends on `seed` and its id alone. Raises `UserError`
        where a class has fewer.
        """
        few = {label: n for label, n in self.counts.items() if n < per_class}
        if per_class < 1 or few:
            have = ", ".join(f"{label} has {n}" for label, n in self.counts.items())
            raise UserError(f"{self.name}: cannot draw {per_class} images a class: {have}")
        draw = np.array([stable_id(f"balanced/{seed}/{i}") for i in self.ids])
        rows = [
            np.flatnonzero(self.labels == k)[np.argsort(draw[self.labels == k])[:per_class]]
            for k in range(len(self.classes))
        ]
        return self.take(np.sort(np.concatenate(rows)))

    def split(
        self,
        seed: int = 0,
        fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
        **options: Any,
    ) -> Splits:
        """Return train, val and test: by group, stratified by class, deterministic in `seed`.

        Where the table names official splits they are kept; `options` are those of `splits.split`.
        """
        from diascope.data.splits import split

        return split(self, seed, fractions, **options)
