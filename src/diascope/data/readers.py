"""Reading images and masks from folders and from ZIP files, without unpacking them."""

from __future__ import annotations

import io
import os
import re
import threading
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from diascope.data.dataset import ReadError
from diascope.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
MAX_PIXELS = 80_000_000
MAX_BYTES = 1 << 29
_HANDLES = threading.local()


@dataclass(frozen=True)
class FileReader:
    """Reads paths relative to `root`; `archive.zip!entry` is an entry of a ZIP file.

    `size`, (width, height), is what every image must have; None takes any.
    """

    root: Path
    size: tuple[int, int] | None = None

    def image(self, path: str) -> NDArray[np.uint8]:
        """Return the image, (H, W, 3) or (H, W, 1); 16-bit grey is scaled to 8."""
        image = self._decoded(path)
        if self.size and image.size != self.size:
            have, want = ("{}x{}".format(*size) for size in (image.size, self.size))
            raise ReadError(path, f"is {have} pixels, expected {want}")
        return _with_channels(path, image)

    def mask(self, path: str) -> NDArray[np.bool_]:
        """Return the region, (H, W): above half of white, or above 0 in a mask of 0 and 1."""
        values = np.asarray(self._decoded(path).convert("L"))
        return values > (127 if values.max(initial=0) > 1 else 0)

    def stamp(self, path: str) -> str:
        """Return place, size and time of a file, or CRC and size of a ZIP entry."""
        archive, bang, entry = path.partition("!")
        try:
            if bang:
                info = archive_of(self.root / archive).getinfo(entry)
                return f"{info.CRC:08x}:{info.file_size}"
            status = (self.root / path).stat()
            return f"{self.root.absolute()}:{status.st_size}:{status.st_mtime_ns}"
        except (OSError, KeyError, zipfile.BadZipFile):
            return "absent"

    def _decoded(self, path: str) -> Image.Image:
        """Return the fully decoded image; every way in which that fails is a `ReadError`."""
        content = _content(self.root, path)
        if not content:
            raise ReadError(path, "the file is empty")
        try:
            image = Image.open(io.BytesIO(content))
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            image.load()
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise ReadError(path, f"has more than {MAX_PIXELS:,} pixels") from None
        except UnidentifiedImageError:
            raise ReadError(path, "is not an image of a known format") from None
        except Exception as error:  # Pillow's decoders raise almost anything on broken files
            raise ReadError(path, f"cannot be decoded: {brief(error)}") from None
        return image


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


def _content(root: Path, path: str) -> bytes:
    archive, bang, entry = path.partition("!")
    try:
        if not bang:
            file = root / path
            if file.stat().st_size > MAX_BYTES:
                raise ReadError(path, f"is larger than {MAX_BYTES >> 20} MiB")
            return file.read_bytes()
        info = archive_of(root / archive).getinfo(entry)
        if info.file_size > MAX_BYTES:
            raise ReadError(path, f"is larger than {MAX_BYTES >> 20} MiB")
        return archive_of(root / archive).read(info)
    except FileNotFoundError:
        raise ReadError(path, "there is no such file") from None
    except KeyError:
        raise ReadError(path, f"{archive} has no such entry") from None
    except (OSError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise ReadError(path, f"cannot be read: {brief(error)}") from None


def _with_channels(path: str, image: Image.Image) -> NDArray[np.uint8]:
    """Return (H, W, 1) of a grey image, (H, W, 3) of any other."""
    if image.mode.startswith("I"):
        deep = np.asarray(image)
        if deep.min() < 0 or deep.max() > 0xFFFF:
            raise ReadError(path, "has grey values outside 16 bits")
        return (deep // 257).astype(np.uint8)[..., None]
    if image.mode == "F":
        raise ReadError(path, "has floating-point pixels, whose range is not known")
    grey = image.mode in ("1", "L", "LA")
    pixels = np.asarray(image.convert("L" if grey else "RGB"))
    return pixels[..., None] if grey else pixels


def listing(root: Path, place: str) -> list[str]:
    """Return the addresses, relative to `root`, of the images in a folder or ZIP file, sorted.

    Hidden files and the resource forks that macOS adds to archives are left out.
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
        if names[-1].lower().endswith(SUFFIXES)
        and not any(name.startswith(".") or name == "__MACOSX" for name in names)
    )


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
