"""Several datasets as one, described by a YAML file: labels of one source, normals of another.

So P3 built its second dataset (Li et al. 2022, section 3.1). Where classes come from different
sources, the source predicts the label; `diascope data verify` says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pydantic import Field

from diascope.data.dataset import Dataset, Reader
from diascope.data.named import DATASETS
from diascope.errors import UserError, nearest
from diascope.settings import Settings, read_yaml, validate

MARK = "::"  # between a part's name and the path in it


class Part(Settings):
    """One of the datasets.

    data: as on the command line; of a relative path after the colon the YAML file's folder is the
    beginning. labels: which of its labels are kept, and as what class; empty for all, as they are.
    source: of its images, where it is to be another than the part's own. images: at most so many of
    each label, drawn by hashed id; None for all.
    """

    data: str
    labels: Mapping[str, str] = Field(default_factory=dict)
    source: str | None = None
    images: int | None = Field(default=None, ge=1)


class Joined(Settings):
    """What is joined: the classes in their order, and the parts by name."""

    name: str = "joined"
    classes: tuple[str, ...]
    parts: Mapping[str, Part]


@DATASETS.register("joined")
def open_joined(root: Path | None, *, parts: dict[str, Part] | None = None) -> Dataset:
    """Return the datasets that the YAML file `root` names, as one; see `Joined` and `Part`.

    Without a file `parts` says what is joined, as in a study: the classes are those that its
    labels become, in that order, and paths are taken from the working folder.

    A path is `PART::path`; a group keeps its name behind that of its part, so that the same number
    in two sources is two patients. `source` is the part's own, else the part's name. Raises
    `UserError` for a file that does not say what it must, and a label that a part does not have.
    """
    if (root is None) == (parts is None):
        raise UserError("joined: write joined:FILE.yaml, or give the option 'parts', and not both")
    if root is not None:
        settings = validate(Joined, read_yaml(root), str(root))
    else:
        assert parts is not None
        root = Path("joined")
        classes = dict.fromkeys(c for part in parts.values() for c in part.labels.values())
        settings = Joined(classes=tuple(classes), parts=parts)
    opened = {name: _opened(root, name, part) for name, part in settings.parts.items()}
    if not opened:
        raise UserError(f"{root}: 'parts' is empty: name the datasets to be joined")
    tables = [_table(name, settings.parts[name], d) for name, d in opened.items()]
    table = pd.concat(tables, ignore_index=True).fillna("")
    unknown = sorted(set(table.label) - set(settings.classes))
    if unknown:
        raise UserError(
            f"{root}: label '{unknown[0]}' is none of the classes "
            f"({', '.join(settings.classes)}): give it one under 'labels', or leave it out there"
        )
    reader = JoinedReader({name: dataset.reader for name, dataset in opened.items()})
    columns = {str(column): table[column] for column in table}
    joined = Dataset.of(settings.name, columns, settings.classes, reader)
    notes = tuple(f"{name}: {note}" for name, d in opened.items() for note in d.notes)
    return Dataset(joined.name, joined.table, joined.classes, reader, notes)


def _opened(root: Path, name: str, part: Part) -> Dataset:
    from diascope.data.opening import open_data  # which knows this member, too

    if not re.fullmatch(r"[\w.-]+", name):
        raise UserError(f"{root}: part '{name}': letters, digits, '.', '_' and '-' only")
    dataset = open_data(_placed(part.data, root.parent))
    for label in part.labels:
        if label not in dataset.classes:
            hint = nearest(label, dataset.classes)
            raise UserError(f"{root}: part '{name}' has no label '{label}': {hint}")
    if part.labels:
        dataset = dataset.restrict(list(part.labels))
    return dataset if part.images is None else _fewer(dataset, part.images)


def _fewer(dataset: Dataset, images: int) -> Dataset:
    """Return at most so many images of each class, drawn by hashed id."""
    kept: set[int] = set()
    for label, count in dataset.counts.items():
        if count:
            drawn = dataset.restrict([label]).balanced(min(images, count))
            kept |= set(drawn.ids[drawn.labels >= 0].tolist())
    return dataset.take(np.isin(dataset.ids, list(kept)))


def _placed(data: str, folder: Path) -> str:
    """Return an address with its path taken from `folder`, where that is relative."""
    name, colon, rest = data.partition(":")
    if not colon:
        return str(folder / data) if (folder / data).exists() else data
    path, comma, options = rest.partition(",")
    if path and "=" not in path:
        path = str(folder / path)
    return f"{name}:{path}{comma}{options}"


def _table(name: str, part: Part, dataset: Dataset) -> pd.DataFrame:
    table = dataset.table.copy()
    table["label"] = table.label.map(lambda label: part.labels.get(label, label))
    for column in ("path", "mask", "group"):
        table[column] = [f"{name}{MARK}{value}" if value else "" for value in table[column]]
    own = table.source.where(table.source != "", name)
    table["source"] = own if part.source is None else part.source
    return table


class JoinedReader:
    """A reader that asks the reader of each part, whose name stands before the path."""

    def __init__(self, readers: Mapping[str, Reader]) -> None:
        self.readers = dict(readers)

    def image(self, path: str) -> NDArray[np.uint8]:
        """Return the image of a row's `path`, (H, W, 3) or (H, W, 1); raises `ReadError`."""
        reader, rest = self._part(path)
        return reader.image(rest)

    def mask(self, path: str) -> NDArray[np.bool_]:
        """Return the region of a row's `mask` entry, (H, W); raises `ReadError`."""
        reader, rest = self._part(path)
        return reader.mask(rest)

    def stamp(self, path: str) -> str:
        """Return a cheap fingerprint of a `path` or `mask` entry."""
        reader, rest = self._part(path)
        return reader.stamp(rest)

    def _part(self, path: str) -> tuple[Reader, str]:
        name, _, rest = path.partition(MARK)
        return self.readers[name], rest
