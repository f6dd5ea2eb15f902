"""Finding one's way in a downloaded folder: images by name, columns, sizes and boxes."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pandas as pd
from PIL import Image

from diascope.data.packed import require
from diascope.data.readers import SUFFIXES, archive_of, brief, read_table
from diascope.errors import UserError

Box = Sequence[float]


def folder_of(root: Path | None, name: str) -> Path:
    """Return `root`; raises `UserError` where it is None or no folder."""
    if root is None or not root.is_dir():
        what = "no folder is given" if root is None else f"{root} is no folder"
        raise UserError(f"{name}: {what}: write {name}:PATH of the downloaded files")
    return root


def columns_of(file: Path, columns: Sequence[str]) -> pd.DataFrame:
    """Return the table in `file`, every value as text; raises `UserError` for an absent column."""
    table = read_table(file)
    require(table, columns, file)
    return table


def images_by_name(
    root: Path, pattern: re.Pattern[str], suffixes: Sequence[str] = SUFFIXES
) -> dict[str, str]:
    """Return the address of each image, relative to `root`, by its file name without suffix.

    Looked for in the folders, at any depth, and ZIP files of `root` whose names fit `pattern`.
    Of two images of one name the first is taken, in folders before archives.
    """
    found: dict[str, str] = {}
    endings = tuple(suffixes)
    for place in sorted(root.iterdir(), key=lambda place: (place.is_file(), place.name)):
        if pattern.fullmatch(place.name):
            for address in sorted(_addresses(root, place)):
                name = address[max(address.rfind("/"), address.rfind("!")) + 1 :]
                if name.lower().endswith(endings) and name[0] != ".":
                    found.setdefault(name.rpartition(".")[0], address)
    return found


def stem(name: str) -> str:
    """Return the file name in `name` without its folder and suffix."""
    name = name[name.rfind("/") + 1 :]
    return name.rpartition(".")[0] or name


def size_of(root: Path, address: str) -> tuple[int, int] | None:
    """Return (width, height) from an image's header; None where it cannot be read."""
    archive, bang, entry = address.partition("!")
    try:
        if not bang:
            with Image.open(root / address) as image:
                return image.size
        with archive_of(root / archive).open(entry) as stream, Image.open(stream) as image:
            return image.size
    except Exception:  # what is wrong with the file is told where its pixels are read
        return None


def boxes_text(boxes: Sequence[Box], scale: tuple[float, float] = (1.0, 1.0)) -> str:
    """Return the JSON [[x, y, w, h], ...] of boxes stretched by `scale` (x, y); "" of none."""
    across, down = scale
    scaled = [[x * across, y * down, w * across, h * down] for x, y, w, h in boxes]
    return json.dumps([[round(side, 4) for side in box] for box in scaled]) if scaled else ""


def numbers_of(values: Sequence[str], where: Path) -> list[float]:
    """Return four sides of a box as numbers; raises `UserError` where one is none."""
    try:
        sides = [float(value) for value in values]
    except ValueError:
        raise UserError(f"{where}: the box {list(values)} is not four numbers") from None
    return sides


def without(
    table: pd.DataFrame, reasons: Mapping[str, pd.Series[bool]]
) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """Return the rows to which no reason applies, and a line for each reason on how many left.

    A row is counted for the first reason that applies to it.
    """
    left, notes = pd.Series(True, table.index), []
    for why, applies in reasons.items():
        if count := int((left & applies).sum()):
            notes.append(f"{count:,} image{'s' * (count > 1)} left out: {why}")
        left &= ~applies
    return table[left], tuple(notes)


def _addresses(root: Path, place: Path) -> Iterator[str]:
    if place.is_dir():
        for folder, _, files in os.walk(place):
            inner = Path(folder).relative_to(root).as_posix()
            yield from (f"{inner}/{name}" for name in files)
    elif place.suffix.lower() == ".zip":
        try:
            entries = archive_of(place).namelist()
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{place}: not a complete ZIP file ({brief(error)}): download it again"
            ) from None
        yield from (f"{place.name}!{name}" for name in entries if "__MACOSX" not in name)
