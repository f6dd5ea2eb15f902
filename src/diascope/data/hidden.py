"""Files under pseudonyms: what is written names no path, the reader knows where it leads.

File names from a clinic hold patient numbers, dates and DICOM's identifiers. With pseudonyms in
the `path` and `mask` columns none of them comes into a split, a table, a report or an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from diascope.data.dataset import COLUMNS, ReadError
from diascope.data.privacy import pseudonym
from diascope.data.readers import FileReader, is_dicom_file


@dataclass(frozen=True)
class HiddenReader:
    """Reads files by their pseudonyms; `places` has the path behind each. Others are paths."""

    reader: FileReader
    places: Mapping[str, str] = field(repr=False)

    @property
    def size(self) -> tuple[int, int] | None:
        """The size that every image must have; None for any."""
        return self.reader.size

    @property
    def depth(self) -> object:
        """How grey of 16 bits becomes 8."""
        return self.reader.depth

    def image(self, path: str) -> NDArray[np.uint8]:
        """Return the image, (H, W, 3) or (H, W, 1)."""
        try:
            return self.reader.image(self.places.get(path, path))
        except ReadError as error:
            raise ReadError(path, error.reason) from None

    def mask(self, path: str) -> NDArray[np.bool_]:
        """Return the region, (H, W)."""
        try:
            return self.reader.mask(self.places.get(path, path))
        except ReadError as error:
            raise ReadError(path, error.reason) from None

    def stamp(self, path: str) -> str:
        """Return place, size and time of a file, or CRC and size of a ZIP entry."""
        return self.reader.stamp(self.places.get(path, path))


def alias(path: str) -> str:
    """Return what stands for a path in all that is written, such as file-0123456789abcdef."""
    return f"file-{pseudonym('path', path)}"


def hide(
    columns: Mapping[str, Sequence[str]],
    reader: FileReader,
    private: bool | None,
    hashed: Sequence[str] | None = None,
) -> tuple[dict[str, list[str]], FileReader | HiddenReader]:
    """Return the columns of a dataset and its reader, with pseudonyms where they belong.

    private: True for the paths, masks and groups of all rows, and then columns other than a
    dataset's own are left out; None for that where one of the files is DICOM; False for none.
    hashed: groups that are pseudonyms already, in place of those of the columns.
    """
    kept = {name: list(values) for name, values in columns.items()}
    if private is None:
        private = any(is_dicom_file(reader.root, path) for path in kept["path"])
    if private:
        kept = {name: values for name, values in kept.items() if name in COLUMNS}
        kept["group"] = [pseudonym("group", each) if each else "" for each in kept.get("group", [])]
    if hashed is not None:
        kept["group"] = list(hashed)
    if not private:
        return kept, reader
    real = [path for name in ("path", "mask") for path in kept.get(name, []) if path]
    names = {path: alias(path) for path in real}
    for name in ("path", "mask"):
        kept[name] = [names.get(path, "") for path in kept.get(name, [])]
    filled = {name: values for name, values in kept.items() if values}
    return filled, HiddenReader(reader, {short: path for path, short in names.items()})
