"""What a file holds, told from its first bytes and, of an archive, from its members."""

from __future__ import annotations

import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Literal

from diascope.errors import UserError
from diascope.models.stored import read_saved

Content = Literal[
    "absent",
    "run",
    "safetensors",
    "torchscript",
    "exported",
    "onnx",
    "weights",
    "pickle",
    "compiled",
    "damaged",
    "unknown",
]

_HEADER = 8  # bytes of the length of a safetensors header
_ZIP, _PICKLE, _ONNX = b"PK\x03\x04", b"\x80", b"\x08"
_VERSIONS = range(1, 32)  # ONNX's, the second byte of its files


def content_of(path: Path) -> Content:
    """Return what a path holds; nothing of it is run. Raises `UserError` for unreadable files."""
    try:
        if not path.exists():
            return "absent"
        if path.is_dir():
            return "run"
        with path.open("rb") as file:
            head = file.read(_HEADER + 1)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if head.startswith(_ZIP):
        return _of_archive(path)
    if head[_HEADER:] == b"{":
        return "safetensors"
    if head.startswith(_PICKLE) and len(head) > 1 and head[1] <= 5:
        return _of_saved(path)
    if head.startswith(_ONNX) and len(head) > 1 and head[1] in _VERSIONS:
        return "onnx"
    return "unknown"


def _of_archive(path: Path) -> Content:
    try:
        with zipfile.ZipFile(path) as archive:
            names = [name.partition("/")[2] for name in archive.namelist()]
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        return "damaged"
    if any("aotinductor/" in name or name.endswith((".so", ".o")) for name in names):
        return "compiled"
    if "archive_format" in names or "serialized_exported_program.json" in names:
        return "exported"
    if "constants.pkl" in names:
        return "torchscript"
    return _of_saved(path) if "data.pkl" in names else "unknown"


def _of_saved(path: Path) -> Content:
    """Tell weights that `torch.save` wrote from a pickle with anything else in it."""
    try:
        read_saved(path, "meta")
    except UnpicklingError:
        return "pickle"
    except Exception:  # of many kinds, for a damaged file
        return "damaged"
    return "weights"
