"""What is taken in: so many bytes, so many files at once, of a format that the content shows."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from starlette.requests import Request

    from diascope.data.formats import Depth

WORDS = 1 << 16  # bytes of a request that is no image
PATIENCE = 60.0  # seconds in which a request must have arrived
KNOWN = "JPEG, PNG, TIFF, BMP, GIF, WebP and DICOM are read"


class Refused(Exception):
    """A request that is not served: the HTTP status and one sentence that names nobody."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence


async def read_body(request: Request, limit: int) -> bytes:
    """Return the body of a request, held in memory; raises `Refused` past `limit` bytes.

    What is declared too large is refused unread, what turns out so as soon as it does.
    """
    declared = request.headers.get("content-length", "0")
    if declared.isdigit() and int(declared) > limit:
        raise _too_large(limit)
    found = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                found += part
                if len(found) > limit:
                    raise _too_large(limit)
    except TimeoutError:
        raise Refused(408, f"The file did not arrive within {PATIENCE:.0f} seconds.") from None
    return bytes(found)


def _too_large(limit: int) -> Refused:
    size = f"{limit >> 20} MB" if limit >= 1 << 20 else f"{limit >> 10} kB"
    return Refused(413, f"This is larger than {size}, which is the limit (--max-upload).")


class Doorway:
    """Lets so many files in at once, and refuses the next."""

    def __init__(self, width: int) -> None:
        self.width, self.inside = width, 0

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Hold a place; raises `Refused` where none is free."""
        if self.inside >= self.width:
            raise Refused(429, "Other files are being read: try again in a moment.")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1


def read_image(content: bytes, depth: Depth) -> NDArray[np.uint8]:
    """Return the image (H, W, 1 or 3) in a file's bytes; raises `Refused`.

    The readers of `diascope.data.formats` tell the format by the content alone, refuse more
    pixels than they decode before memory is taken, and say nothing of what a DICOM header holds.
    """
    from diascope.data.formats import FormatError, decode

    try:
        return decode(content, depth)
    except FormatError as error:
        raise Refused(415, _sentence(str(error))) from None


def _sentence(what: str) -> str:
    """Return what is wrong with a file as a sentence."""
    hint = f" ({KNOWN})" if "known format" in what else ""
    start = "The file" if not what.startswith("the file") else ""
    sentence = f"{start} {what}".strip()
    return f"{sentence[0].upper()}{sentence[1:]}{hint}."


def read_mask(content: bytes) -> NDArray[np.bool_]:
    """Return the region (H, W) in the bytes of a mask's file; raises `Refused`."""
    from diascope.data.formats import FormatError, decode_mask

    try:
        return decode_mask(content)
    except FormatError as error:
        raise Refused(415, _sentence(str(error))) from None


def choice(content: dict[str, Any], key: str, known: tuple[str, ...] | list[str]) -> str:
    """Return the value of `key`, one of `known`; raises `Refused`."""
    value = content.get(key)
    if not isinstance(value, str) or value not in known:
        raise Refused(422, f"'{key}' is none of {', '.join(known)}.")
    return value


def whole(content: dict[str, Any], key: str, low: int, high: int) -> int:
    """Return the value of `key`, a whole number from `low` to `high`; raises `Refused`."""
    value = content.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise Refused(422, f"'{key}' is no whole number from {low} to {high}.")
    return value
