"""Tables and sizes of a download, whether or not it was unpacked."""

from __future__ import annotations

import io
import re
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from diascope.data.readers import brief, read_table
from diascope.errors import UserError, nearest

_LARGEST = 1 << 26  # bytes of a table within an archive


def table_of(root: Path, *names: str) -> tuple[Path, pd.DataFrame] | None:
    """Return the first table of these names in `root`, with its file; None where there is none.

    Looked for in `root`, in a folder of its own name (as archives unpack), and in `name.zip` or,
    without the table's suffix, `stem.zip`.
    """
    for name in names:
        bare = name.rpartition(".")[0]
        for file in (root / name, root / bare / name):
            if file.is_file():
                return file, read_table(file)
        for file in (root / f"{name}.zip", root / f"{bare}.zip"):
            table = _unpacked(file, name) if file.is_file() else None
            if table is not None:
                return file, table
    return None


def require(table: pd.DataFrame, columns: Sequence[str], file: Path) -> None:
    """Raise `UserError` for the first of `columns` that `table`, read from `file`, has not."""
    for column in columns:
        if column not in table:
            hint = nearest(column, [str(name) for name in table])
            raise UserError(f"{file}: no column '{column}': {hint} Download it again")


def place_of(found: Mapping[str, str]) -> tuple[str, str]:
    """Return what stands before and after the name in an address: where a missing one would be."""
    name, address = next(iter(found.items()))
    before, _, after = address.rpartition(f"{name}.")
    return before, f".{after}"


def named_size(address: str) -> tuple[int, int] | None:
    """Return (width, height) of an archive called `images_WxH`, or `images_S` of squares."""
    match = re.match(r"images_(\d+)(?:x(\d+))?[./!]", address, re.IGNORECASE)
    return (int(match[1]), int(match[2] or match[1])) if match else None


def _unpacked(file: Path, name: str) -> pd.DataFrame | None:
    """Return the table `name` in the archive `file`; None where it holds none."""
    try:
        with zipfile.ZipFile(file) as archive:
            info = next((e for e in archive.infolist() if Path(e.filename).name == name), None)
            if info is None:
                return None
            if info.file_size > _LARGEST:
                raise UserError(f"{file}: {name} is larger than {_LARGEST >> 20} MiB")
            text = archive.read(info).decode("utf-8-sig")
        return pd.read_csv(io.StringIO(text), dtype=str, keep_default_na=False)
    except (OSError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{file}: cannot be read as a table ({brief(error)})") from None
