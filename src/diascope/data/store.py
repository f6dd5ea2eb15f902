"""The files of a pixel cache, and reading from them whatever the order.

A cache is a folder of raw images end to end, `grey.raw` of one channel and `colour.raw` of three,
of regions packed to bits, `masks.raw`, and of a table that says where each image lies. A colour
image whose three channels are equal lies in `grey.raw`: it takes a third of the room, and is
repeated when it is read. Rows are read by offset: nothing is mapped, so that a cache larger than
the memory is read in any order at the cost of its rows alone, and a file cut short is an error.
"""

from __future__ import annotations

import json
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diascope.errors import UserError

FORMAT = 2
GREY, COLOUR, PROBLEM = 0, 1, 2
FILES = ("grey.raw", "colour.raw")
MASKS = "masks.raw"
TABLE, NOTES, ABOUT, LOCK = "rows.npy", "noted.raw", "about.json", "lock"

# print: what the pixels depend on. kind: grey, colour, or a problem. place: the row in its file.
# mask: the region's row plus one, 0 for none. content: a hash of the pixels with all channels.
ROW = np.dtype(
    [("print", "S12"), ("kind", "u1"), ("place", "<u4"), ("mask", "<u4"), ("content", "V8")]
)
Table = NDArray[np.void]


@dataclass(frozen=True)
class Shape:
    """Images of `size` x `size` pixels and `channels` channels, as they lie on the disk."""

    size: int
    channels: int

    def image_bytes(self, kind: int) -> int:
        """Return the bytes of one image."""
        return self.size**2 * (1 if kind == GREY else 3)

    @property
    def mask_bytes(self) -> int:
        """The bytes of one region."""
        return (self.size**2 + 7) // 8


class RowFile:
    """Rows of `width` bytes each, read by number; closed when it is no longer in use."""

    def __init__(self, path: Path, width: int) -> None:
        self.path, self.width = path, width
        self.handle = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self.handle)

    def __reduce__(self) -> tuple[type[RowFile], tuple[Path, int]]:
        return RowFile, (self.path, self.width)

    def __len__(self) -> int:
        return os.fstat(self.handle).st_size // self.width

    def expect(self, places: NDArray[Any]) -> None:
        """Have the disk fetch these rows, all at once and without waiting for them."""
        if hasattr(os, "posix_fadvise"):
            for first, last in _runs(places):
                start, length = int(places[first]) * self.width, (last - first) * self.width
                os.posix_fadvise(self.handle, start, length, os.POSIX_FADV_WILLNEED)

    def read(self, places: NDArray[Any], out: NDArray[np.uint8]) -> None:
        """Read these rows into `out` (B, ...), whose rows are `width` bytes and contiguous."""
        if len(places) > 1:
            self.expect(places)
        view = out.reshape(-1).data
        for first, last in _runs(places):
            part = view[first * self.width : last * self.width]
            offset = int(places[first]) * self.width
            while part:
                count = os.preadv(self.handle, [part], offset)
                if not count:
                    raise UserError(
                        f"{self.path}: is shorter than it was: remove the cache "
                        "('diascope data cache --clear'), and it is built again"
                    )
                part, offset = part[count:], offset + count


def _runs(places: NDArray[Any]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of `places` (B,) that follow one another in the file."""
    if not len(places):
        return
    cuts = (np.flatnonzero(np.diff(places.astype(np.int64)) != 1) + 1).tolist()
    yield from zip([0, *cuts], [*cuts, len(places)], strict=True)


class Store:
    """The images and regions of one cache, complete or unfinished, and the table of its rows.

    `table` is sorted by print; `problems` says, by number in the table, what is wrong with a row
    that could not be decoded.
    """

    def __init__(
        self, folder: Path, shape: Shape, table: Table, problems: dict[int, list[tuple[str, str]]]
    ) -> None:
        self.folder, self.shape, self.table, self.problems = folder, shape, table, problems
        widths = [shape.image_bytes(kind) for kind in (GREY, COLOUR)]
        self.files = [RowFile(folder / name, w) for name, w in zip(FILES, widths, strict=True)]
        self.masks = RowFile(folder / MASKS, shape.mask_bytes)
        for kind, file in enumerate(self.files):
            if len(file) <= table["place"][table["kind"] == kind].astype(np.int64).max(initial=-1):
                raise ValueError(f"{file.path} is too short")
        if len(self.masks) < table["mask"].max(initial=0):
            raise ValueError(f"{self.masks.path} is too short")

    @classmethod
    def open(cls, folder: Path) -> Store | None:
        """Return the complete cache in `folder`; None where there is none, or a damaged one."""
        try:
            about = json.loads((folder / ABOUT).read_text())
            table = np.load(folder / TABLE)
            if table.dtype != ROW or len(table) != about["images"]:
                return None
            problems = {
                int(row): [(path, reason) for path, reason in each]
                for row, each in about["problems"].items()
            }
            return cls(folder, Shape(about["size"], about["channels"]), table, problems)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    @classmethod
    def unfinished(cls, folder: Path, shape: Shape) -> Store | None:
        """Return what a builder has noted in `folder` so far; None where it is nothing."""
        try:
            return cls(folder, shape, sorted_by_print(noted(folder)), {})
        except (OSError, ValueError):
            return None

    def locate(self, prints: NDArray[np.bytes_]) -> NDArray[np.int64]:
        """Return the number in the table of each print (N,); -1 where it is not in it."""
        known = self._prints
        if not len(known):
            return np.full(len(prints), -1, np.int64)
        at = np.minimum(np.searchsorted(known, prints), len(known) - 1)
        return np.where(known[at] == prints, at, -1)

    @cached_property
    def _prints(self) -> NDArray[np.bytes_]:
        return np.ascontiguousarray(self.table["print"])

    def has_mask(self, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which of some rows of the table have a region, (N,)."""
        return self.table["mask"][rows] > 0

    def read(self, row: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Return the image (S, S, 1 or 3) and the packed region of one row as they lie here."""
        kind, place, mask = (self.table[name][row] for name in ("kind", "place", "mask"))
        image = np.empty((self.shape.size, self.shape.size, 1 if kind == GREY else 3), np.uint8)
        self.files[kind].read(np.array([place]), image)
        if not mask:
            return image, None
        region = np.empty(self.shape.mask_bytes, np.uint8)
        self.masks.read(np.array([mask]) - 1, region)
        return image, region


def sorted_by_print(table: Table) -> Table:
    """Return the rows in the order of their prints."""
    return table[np.argsort(table["print"], kind="stable")]


def noted(folder: Path) -> Table:
    """Return the rows that a builder has noted in `folder`, in the order it did."""
    content = (folder / NOTES).read_bytes()
    return np.frombuffer(content[: len(content) // ROW.itemsize * ROW.itemsize], ROW)


class Images:
    """The images of a cache as an array (N, S, S, C) of uint8 whose rows are read when asked for.

    Rows are those of the cache's table.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, store: Store) -> None:
        self.store = store
        self._kind = np.ascontiguousarray(store.table["kind"])
        self._place = store.table["place"].astype(np.int64)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the whole array would have."""
        shape = self.store.shape
        return len(self), shape.size, shape.size, shape.channels

    def __len__(self) -> int:
        return len(self.store.table)

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Return the images at integer positions, (..., S, S, C)."""
        found = self.narrow(rows)
        if found.shape[-1] == self.shape[-1]:
            return found
        return np.repeat(found, self.shape[-1], axis=-1)

    def narrow(self, rows: Any) -> NDArray[np.uint8]:
        """Return the images at integer positions; of one channel where all of them are grey."""
        rows = np.asarray(rows)
        flat, size = rows.reshape(-1), self.store.shape.size
        kind, place = self._kind[flat], self._place[flat]
        grey = kind == GREY
        if grey.all() or not grey.any():
            one = 1 if grey.all() else 3
            out = np.empty((len(flat), size, size, one), np.uint8)
            self.store.files[GREY if one == 1 else COLOUR].read(place, out)
        else:
            out = np.empty((len(flat), size, size, 3), np.uint8)
            for each in (GREY, COLOUR):
                of = np.flatnonzero(kind == each)
                part = np.empty((len(of), size, size, 1 if each == GREY else 3), np.uint8)
                self.store.files[each].read(place[of], part)
                out[of] = part
        return out.reshape(*rows.shape, *out.shape[1:])

    def grey(self, rows: NDArray[np.int64]) -> bool:
        """Return whether all these images have one channel here."""
        return bool((self._kind[rows] == GREY).all())

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Have the disk fetch the images of these rows, for a reading that comes soon."""
        for kind, file in enumerate(self.store.files):
            file.expect(self._place[rows[self._kind[rows] == kind]])

    def contents(self, rows: NDArray[np.int64]) -> list[str]:
        """Return 16 hexadecimal digits for each image, of the pixels with all their channels."""
        text = self.store.table["content"][rows].tobytes().hex()
        return [text[start : start + 16] for start in range(0, len(text), 16)]


class Masks:
    """The regions of a cache as an array (N, S, S) of 0 and 1, whose rows are read when asked."""

    dtype = np.dtype(np.uint8)

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the whole array would have."""
        return len(self), self.store.shape.size, self.store.shape.size

    def __len__(self) -> int:
        return len(self.store.table)

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        """Return the regions at integer positions, (..., S, S); zeros where there is none."""
        rows = np.asarray(rows)
        place = self.store.table["mask"][rows.reshape(-1)].astype(np.int64) - 1
        have = np.flatnonzero(place >= 0)
        size = self.store.shape.size
        packed = np.zeros((len(place), self.store.shape.mask_bytes), np.uint8)
        part = np.empty((len(have), packed.shape[1]), np.uint8)
        self.store.masks.read(place[have], part)
        packed[have] = part
        return np.unpackbits(packed, axis=1, count=size**2).reshape(*rows.shape, size, size)
