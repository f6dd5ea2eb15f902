"""Arrays of a `.npz` file: no pickle, no more memory than they say, large ones on disk."""

from __future__ import annotations

import hashlib
import shutil
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from diascope.data.cache import cache_folder
from diascope.data.readers import brief
from diascope.errors import UserError
from diascope.files import replacing

IN_MEMORY = 1 << 30  # bytes; a larger array is unpacked to disk and mapped


@dataclass(frozen=True, eq=False)
class Array:
    """An array, in memory or mapped, and the `stamp` of its bytes."""

    values: NDArray[Any]
    stamp: str


def read_npz(
    file: Path, names: Sequence[str], what: str, in_memory: int = IN_MEMORY
) -> list[Array]:
    """Return the arrays `names` of a `.npz` file, which `what` names in errors.

    An array of more than `in_memory` bytes is unpacked once, into the folder of the pixel cache,
    and mapped from there. Raises `UserError` for a damaged file, an absent name, an array of
    objects, one in Fortran order, and one whose length is not what it says.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            have = {entry.filename: entry for entry in archive.infolist()}
            missing = [name for name in names if f"{name}.npy" not in have]
            if missing:
                raise UserError(f"{file}: not {what}: it has no array '{missing[0]}'")
            return [_read(archive, have[f"{name}.npy"], in_memory) for name in names]
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise UserError(f"{file}: cannot be read ({brief(error)}): download it again") from None


def _read(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, in_memory: int) -> Array:
    with archive.open(entry) as stream:
        shape, dtype = _header(stream, entry)
        stamp = f"{entry.CRC:08x}:{entry.file_size}"
        count = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
        if count != entry.file_size - stream.tell():
            raise ValueError(f"{entry.filename} is not as long as it says")
        if count <= in_memory:
            values = np.frombuffer(stream.read(), dtype)
            return Array(values.reshape(shape), stamp)
    key = hashlib.blake2b(f"{archive.filename}/{entry.filename}/{stamp}".encode(), digest_size=12)
    target = cache_folder() / "unpacked" / f"{key.hexdigest()}.npy"
    if not target.is_file():
        with archive.open(entry) as stream, replacing(target) as aside, aside.open("wb") as copy:
            shutil.copyfileobj(stream, copy, 1 << 22)
    return Array(np.load(target, mmap_mode="r", allow_pickle=False), stamp)


def _header(stream: IO[bytes], entry: zipfile.ZipInfo) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{entry.filename} is of an unknown version of .npy")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds objects, which are not unpickled")
    if fortran and len(shape) > 1:
        raise ValueError(f"{entry.filename} is in Fortran order")
    return shape, dtype
