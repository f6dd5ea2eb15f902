"""What all formats share: their limits, their error, and how one is told from the other."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 80_000_000
MAX_BYTES = 1 << 29
HEAD = 132  # bytes that tell a format

Depth = Literal[8, 10, 12, 14, 16, "stretch"]
Levels = NDArray[np.integer]


class FormatError(Exception):
    """What is wrong with a file, on one line, without a value of the file that could be a name."""


def decode(content: bytes, depth: Depth = 16) -> NDArray[np.uint8]:
    """Return the image in `content`: (H, W, 1) of grey, (H, W, 3) of any other.

    `depth`: how grey of 16 bits becomes 8 (see `formats.grey`). Raises `FormatError`.
    """
    if not content:
        raise FormatError("the file is empty")
    if is_dicom(content):
        from diascope.data.formats import dicom

        return dicom.image(content)
    from diascope.data.formats import pictures

    return pictures.image(content, depth)


def decode_mask(content: bytes) -> NDArray[np.bool_]:
    """Return the region in `content`, (H, W): above half of white, or above 0 of 0 and 1.

    White is 255, and 65,535 in a mask that holds more than 255. Raises `FormatError`.
    """
    if not content:
        raise FormatError("the file is empty")
    if is_dicom(content):
        from diascope.data.formats import dicom

        return np.asarray(dicom.image(content).max(axis=2) > 127)
    from diascope.data.formats import pictures

    values = pictures.grey(content)
    top = int(values.max(initial=0))
    return np.asarray(values > (0 if top <= 1 else 127 if top <= 255 else 32767))


def is_dicom(head: bytes) -> bool:
    """Tell whether a file that begins with `head` (132 bytes are enough) is a DICOM file.

    One has "DICM" after 128 bytes. Old ones lack these and begin with an element of group 0002 or
    0008, whose number is small.
    """
    if head[128:132] == b"DICM":
        return True
    bare = head[:2] in (b"\x02\x00", b"\x08\x00") and len(head) >= 8
    element = int.from_bytes(head[2:4], "little")
    known = head[4:6] in (b"UL", b"OB", b"CS", b"UI", b"DA", b"TM", b"LO", b"SH")
    short = int.from_bytes(head[4:8], "little") <= 64
    return bare and element <= 0x0018 and (known or short)


def check_size(width: int, height: int) -> None:
    """Raise `FormatError` for more pixels than are decoded, or none."""
    if width < 1 or height < 1:
        raise FormatError(f"declares {width}x{height} pixels: the file is damaged")
    if width * height > MAX_PIXELS:
        raise FormatError(f"has more than {MAX_PIXELS:,} pixels")
