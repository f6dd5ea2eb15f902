"""Reading images and masks from folders and from ZIP files, without unpacking them."""

from __future__ import annotations

import io
import os
import re
import threading
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from diascope.data.dataset import ReadError
from diascope.data.formats import Depth, FormatError, decode, decode_mask, is_dicom
from diascope.data.formats.base import HEAD, MAX_BYTES
from diascope.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
DICOM_SUFFIXES = (".dcm", ".dicom", ".dic", ".ima")
_PACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others grow without a bound
_HANDLES = threading.local()


@dataclass(frozen=True)
class FileReader:
    """Reads paths relative to `root`; `archive.zip!entry` is an entry of a ZIP file.

    `size`, (width, height), is what every image must have; None takes any. `depth` says what white
    is in grey of 16 bits (see `formats.grey`). The format is what the content shows, whatever the
    file is called.
    """

    root: Path
    size: tuple[int, int] | None = None
    depth: Depth = 16

    def image(self, path: str) -> NDArray[np.uint8]:
        """Return the image, (H, W, 3) or (H, W, 1)."""
        try:
            pixels = decode(_content(self.root, path), self.depth)
        except FormatError as error:
            raise ReadError(path, str(error)) from None
        found = pixels.shape[1::-1]
        if self.size and found != self.size:
            have, want = ("{}x{}".format(*size) for size in (found, self.size))
            raise ReadError(path, f"is {have} pixels, expected {want}")
        return pixels

    def mask(self, path: str) -> NDArray[np.bool_]:
        """Return the region, (H, W): above half of white, or above 0 in a mask of 0 and 1."""
        try:
            return decode_mask(_content(self.root, path))
        except FormatError as error:
            raise ReadError(path, str(error)) from None

    def stamp(self, path: str) -> str:
        """Return place, size and time of a file, or CRC and size of a ZIP entry."""
        archive, bang, entry = path.partition("!")
        deep = "" if self.depth == 16 else f":{self.depth}"
        try:
            if bang:
                info = archive_of(self.root / archive).getinfo(entry)
                return f"{info.CRC:08x}:{info.file_size}{deep}"
            status = (self.root / path).stat()
            return f"{self.root.absolute()}:{status.st_size}:{status.st_mtime_ns}{deep}"
        except (OSError, KeyError, zipfile.BadZipFile):
            return "absent"


def brief(error: Exception) -> str:
    """Return what an error says, on one line."""
    words = getattr(error, "strerror", None) or " ".join(str(error).split())
    return words or type(error).__name__


def archive_of(file: Path) -> zipfile.ZipFile:
    """Return the open ZIP file, one handle a process and thread."""
    handles: dict[tuple[int, Path, int, int], zipfile.ZipFile]
    handles = _HANDLES.__dict__.setdefault("handles", {})
    status = file.stat()
    key = os.getpid(), file, status.st_size, status.st_mtime_ns
    if key not in handles:
        handles[key] = zipfile.ZipFile(file)
    return handles[key]


@contextmanager
def opened(root: Path, path: str) -> Iterator[BinaryIO]:
    """Yield the open file at an address, at its beginning; raises `ReadError` for none.

    The error does not repeat names within an archive, and nothing beyond the declared size of an
    entry is unpacked by `read(size)`.
    """
    archive, bang, entry = path.partition("!")
    try:
        if not bang:
            with (root / path).open("rb") as file:
                yield file
            return
        info = archive_of(root / archive).getinfo(entry)
        if info.compress_type not in _PACKED:
            raise ReadError(path, "is packed by a method that is not read: pack it by deflate")
        with archive_of(root / archive).open(info) as packed:
            yield cast("BinaryIO", packed)
    except FileNotFoundError:
        raise ReadError(path, "there is no such file") from None
    except KeyError:
        raise ReadError(path, "the archive has no such entry") from None
    except zipfile.BadZipFile as error:
        crc = "CRC" in str(error)
        what = "its checksum (CRC-32) differs" if crc else "the archive is damaged"
        raise ReadError(path, f"cannot be read: {what}") from None
    except RuntimeError as error:
        what = "is encrypted: unpack it" if "encrypted" in str(error) else "cannot be read"
        raise ReadError(path, what) from None
    except (OSError, EOFError, zlib.error, NotImplementedError) as error:
        raise ReadError(path, f"cannot be read: {_plain(error)}") from None


def _content(root: Path, path: str) -> bytes:
    archive, bang, entry = path.partition("!")
    with opened(root, path) as file:
        if bang:
            size = archive_of(root / archive).getinfo(entry).file_size
        else:
            size = os.fstat(file.fileno()).st_size
        if size > MAX_BYTES:
            raise ReadError(path, f"is larger than {MAX_BYTES >> 20} MiB")
        return file.read(size)


def _plain(error: Exception) -> str:
    """Return what an error says where that names no file, else its kind."""
    return getattr(error, "strerror", None) or type(error).__name__


def is_dicom_file(root: Path, path: str) -> bool:
    """Tell whether a file is DICOM, by its suffix where that is a known one, else its content."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix in SUFFIXES + DICOM_SUFFIXES:
        return suffix in DICOM_SUFFIXES
    try:
        with opened(root, path) as file:
            return is_dicom(file.read(HEAD))
    except ReadError:
        return False


def listing(root: Path, place: str) -> list[str]:
    """Return the addresses, relative to `root`, of the images in a folder or ZIP file, sorted.

    DICOM files often have no suffix, or a number for one: such are looked into. Hidden files, the
    resource forks that macOS adds to archives and DICOMDIR, which is a directory, are left out.
    """
    if (root / place).is_dir():
        found = [f.relative_to(root).as_posix() for f in (root / place).rglob("*") if f.is_file()]
    else:
        try:
            found = [f"{place}!{entry}" for entry in archive_of(root / place).namelist()]
        except (OSError, zipfile.BadZipFile) as error:
            raise UserError(
                f"{root / place}: not a complete ZIP file ({brief(error)}): download it again"
            ) from None
    parts = ((address, re.split(r"[/!]", address)) for address in found)
    return sorted(
        address
        for address, names in parts
        if not any(name.startswith(".") or name == "__MACOSX" for name in names)
        and _is_image(root, address, names[-1])
    )


def _is_image(root: Path, address: str, name: str) -> bool:
    suffix = os.path.splitext(name)[1].lower()
    if suffix in SUFFIXES + DICOM_SUFFIXES:
        return True
    bare = not suffix or suffix[1:].isdigit()
    return bare and name not in ("", "DICOMDIR") and is_dicom_file(root, address)


def parse_size(text: str, where: str) -> tuple[int, int] | None:
    """Return (width, height) of "WxH", None of "any"."""
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if text != "any" and not match:
        raise UserError(
            f"{where}: image_size '{text}': write WIDTHxHEIGHT, such as 600x450, or any"
        )
    return (int(match[1]), int(match[2])) if match else None


def read_table(file: Path) -> pd.DataFrame:
    """Return a CSV, tab-separated or Parquet table, every value as text, "" where absent."""
    try:
        if file.suffix.lower() == ".parquet":
            table = pd.read_parquet(file)
            return table.astype(object).where(table.notna(), "").astype(str)
        text = file.read_text(encoding="utf-8-sig")
        separator = "\t" if "\t" in text.partition("\n")[0] else ","
        return pd.read_csv(io.StringIO(text), sep=separator, dtype=str, keep_default_na=False)
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file") from None
    except (OSError, ValueError, pa.ArrowException) as error:
        raise UserError(f"{file}: cannot be read as a table ({brief(error)})") from None
