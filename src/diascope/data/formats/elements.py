"""Single elements of DICOM files, read without any other: names and dates stay unread bytes.

What pydicom warns of or logs quotes values, and so may its errors. It is silenced while a file is
read here, and none of its words becomes part of an error of ours.
"""

from __future__ import annotations

import functools
import io
import logging
import math
import threading
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from diascope.data.formats.base import HEAD, MAX_BYTES, FormatError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset as Elements

IMPLICIT, EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
DEFLATED, BIG = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.2"
SYNTAX = 0x00020010
PIXELS = 0x7FE00000
_ONE_AT_A_TIME = threading.Lock()
_HERE = threading.local()


@contextmanager
def reading() -> Iterator[None]:
    """Keep pydicom silent, and make what it raises a `FormatError` without its words.

    The filters of warnings belong to the whole process, so threads take turns.
    """
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _mute()
        _HERE.reading = True
        try:
            yield
        except FormatError:
            raise
        except MemoryError:
            raise FormatError("takes more memory than there is") from None
        except Exception as error:  # pydicom raises almost anything on broken files
            kind = type(error).__name__
            raise FormatError(f"is a damaged DICOM file ({kind} in its header)") from None
        finally:
            _HERE.reading = False


@functools.cache
def _mute() -> None:
    """Drop what pydicom logs in a thread that reads here."""
    logger = logging.getLogger("pydicom")
    logger.addFilter(lambda record: not getattr(_HERE, "reading", False))


def parse(file: BinaryIO, tags: Sequence[int], stop: int | None = None) -> tuple[str, Elements]:
    """Return the transfer syntax of a DICOM file, and those of its elements that are in `tags`.

    `stop`: the first element at which to end. To be called within `reading`.
    """
    from pydicom.filereader import read_dataset

    begin = HEAD if file.read(HEAD)[128:] == b"DICM" else 0
    file.seek(begin)
    syntax = _syntax(file)
    if syntax == DEFLATED:
        file, syntax = io.BytesIO(_inflated(file.read())), EXPLICIT
    syntax = syntax or (IMPLICIT if _is_implicit(file) else EXPLICIT)
    halt: Callable[[Any, Any, Any], bool] | None = None
    if stop is not None:
        last = stop
        halt = lambda tag, vr, length: tag >= last  # noqa: E731
    wanted: Any = list(tags)
    found = read_dataset(file, syntax == IMPLICIT, syntax != BIG, None, halt, specific_tags=wanted)
    return syntax, found


def _syntax(file: BinaryIO) -> str:
    """Return the transfer syntax, "" where none is named; `file` then stands behind group 0002."""
    from pydicom.filereader import data_element_generator

    syntax, begin = "", file.tell()
    group = file.read(2)
    file.seek(begin)
    if group != b"\x02\x00":
        return ""
    for element in data_element_generator(
        file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2
    ):
        if element.tag == SYNTAX and isinstance(element.value, bytes):
            syntax = element.value.decode("ascii", "replace").strip("\0 ")
    return syntax  # the generator has gone back to the element at which it stopped


def _is_implicit(file: BinaryIO) -> bool:
    """Tell whether the next element lacks the two letters of its kind."""
    place = file.tell()
    kind = file.read(6)[4:]
    file.seek(place)
    return not (kind.isalpha() and kind.isupper())


def _inflated(content: bytes) -> bytes:
    """Return deflated elements; raises `FormatError` where they grow beyond the limit."""
    unpack = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = unpack.decompress(content, MAX_BYTES)
    if unpack.unconsumed_tail:
        raise FormatError(f"is larger than {MAX_BYTES >> 20} MiB when unpacked")
    return plain


@functools.cache
def tag_of(keyword: str) -> int | None:
    """Return the number of the element that the standard calls `keyword`; None for no such."""
    from pydicom.datadict import tag_for_keyword

    return tag_for_keyword(keyword)


def text(file: BinaryIO, keyword: str) -> str:
    """Return an element of a DICOM file as text, "" where it is absent; of several values all.

    Raises `FormatError` for a file that is damaged, or none of DICOM.
    """
    tag = tag_of(keyword)
    assert tag is not None, keyword
    with reading():
        _, elements = parse(file, [tag], stop=min(tag + 1, PIXELS))
        return word(elements, keyword)


def first(elements: Elements, keyword: str) -> Any:
    """Return the first value of an element; None where it is absent or empty."""
    value = elements.get(keyword)
    if isinstance(value, str | bytes) or not hasattr(value, "__getitem__"):
        return None if value == "" else value
    return value[0] if len(value) else None


def word(elements: Elements, keyword: str) -> str:
    """Return an element as text without padding, "" where it is absent."""
    value = elements.get(keyword)
    return "" if value is None else str(value).strip("\0 ")


def number(elements: Elements, keyword: str, default: float | None = None) -> float:
    """Return the first value of an element as a number; `FormatError` where it is none."""
    value = first(elements, keyword)
    if value is None:
        if default is None:
            raise FormatError(f"{named(keyword)} is missing")
        return default
    try:
        found = float(value)
    except (TypeError, ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise FormatError(f"{named(keyword)} is not a number")
    return found


def integer(elements: Elements, keyword: str, default: int | None = None) -> int:
    """Return the first value of an element that is a whole number; `FormatError` if it is none."""
    value = number(elements, keyword, default)
    if value != int(value):
        raise FormatError(f"{named(keyword)} is not a whole number")
    return int(value)


def named(keyword: str) -> str:
    """Return an element's keyword and number, such as Rows (0028,0010)."""
    tag = tag_of(keyword) or 0
    return f"{keyword} ({tag >> 16:04X},{tag & 0xFFFF:04X})"
