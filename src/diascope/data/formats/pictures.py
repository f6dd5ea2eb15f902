"""JPEG, PNG, TIFF, BMP, GIF and WebP by Pillow, which is told no more than these.

Colour profiles are not applied. The alpha channel is dropped, the colours under it stay. The
orientation that a camera noted (EXIF) is applied, so that an image is what a viewer shows.
"""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from diascope.data.formats.base import MAX_PIXELS, Depth, FormatError, Levels, check_size
from diascope.data.formats.grey import FAINT, to_8_bits

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP")
MAX_SCANS = 100
ORIENTATION = 0x0112
BITS_PER_SAMPLE, PHOTOMETRIC, TILE_WIDTH, TILE_LENGTH = 258, 262, 322, 323
_QUIET = threading.Lock()
T = TypeVar("T")


def image(content: bytes, depth: Depth) -> NDArray[np.uint8]:
    """Return the picture in `content`, (H, W, 1) or (H, W, 3); raises `FormatError`."""
    return _guarded(lambda: _image(content, depth))


def grey(content: bytes) -> Levels:
    """Return the picture in `content` as grey levels (H, W), of 16 bits where it has them."""
    return _guarded(lambda: _grey(content))


def _image(content: bytes, depth: Depth) -> NDArray[np.uint8]:
    picture = _decoded(content)
    if _is_deep(picture):
        return to_8_bits(_levels(picture), depth)[..., None]
    plain = picture.mode in ("1", "L", "LA")
    pixels = np.asarray(picture.convert("L" if plain else "RGB"))
    if _lost_bits(content, picture) and 0 < int(pixels.max(initial=0)) < FAINT >> 8:
        raise FormatError(
            f"has 16 bits a channel and uses the lowest {int(pixels.max()) + 1} of 256 levels that "
            "are read of them: save it as grey of 16 bits, or with 8 bits a channel"
        )
    return pixels[..., None] if plain else pixels


def _grey(content: bytes) -> Levels:
    picture = _decoded(content)
    return _levels(picture) if _is_deep(picture) else np.asarray(picture.convert("L"))


def _guarded(read: Callable[[], T]) -> T:
    """Return what `read` returns; whatever Pillow raises is a `FormatError`."""
    try:
        return read()
    except FormatError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise FormatError(f"has more than {MAX_PIXELS:,} pixels") from None
    except UnidentifiedImageError:
        raise FormatError("is not an image of a known format") from None
    except MemoryError:
        raise FormatError("cannot be decoded: it takes more memory than there is") from None
    except Exception as error:  # Pillow's decoders raise almost anything on broken files
        words = " ".join(str(error).split()) or type(error).__name__
        raise FormatError(f"cannot be decoded: {words}") from None


def _decoded(content: bytes) -> Image.Image:
    """Return the picture, decoded and turned upright; a `FormatError` before memory is taken."""
    _refuse_bombs(content)
    with _QUIET, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of metadata that nobody reads here
        picture = Image.open(io.BytesIO(content), formats=FORMATS)
        check_size(picture.width, picture.height)
        if picture.format == "TIFF":
            _check_tiff(picture)
        elif picture.format != "MPO" and getattr(picture, "n_frames", 1) > 1:
            raise FormatError("is an animation: save the one image that is meant")
        turned = picture.format in ("JPEG", "MPO") and _orientation(picture) != 1
    picture.load()
    picture.info.pop("transparency", None)
    return ImageOps.exif_transpose(picture) if turned else picture


def _orientation(picture: Image.Image) -> int:
    """Return the orientation in the EXIF data, 1 to 8; 1 where they are absent or broken."""
    try:
        found = picture.getexif().get(ORIENTATION, 1)
    except Exception:  # metadata: Pillow raises almost anything here too
        return 1
    return found if found in range(2, 9) else 1


def _check_tiff(picture: Image.Image) -> None:
    """Raise `FormatError` for more than one page, and for tiles far larger than the picture."""
    if getattr(picture, "is_animated", False):
        raise FormatError("holds more than one page: save the one that is meant as its own file")
    tags = picture.tag_v2  # type: ignore[attr-defined]
    for tag, side in ((TILE_WIDTH, picture.width), (TILE_LENGTH, picture.height)):
        if int(tags.get(tag, 0)) > 2 * side + 4096:
            raise FormatError("declares tiles far larger than itself: the file is damaged")


def _refuse_bombs(content: bytes) -> None:
    """Raise `FormatError` for what takes memory or time before Pillow has told the size."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        check_size(*_webp_size(content))
    if content[:2] == b"\xff\xd8" and content.count(b"\xff\xda") > MAX_SCANS:
        raise FormatError(f"has more than {MAX_SCANS} scans: save it anew")


def _webp_size(content: bytes) -> tuple[int, int]:
    """Return (width, height) as the first chunk of a WebP file says."""
    kind, data = content[12:16], content[20:34]
    if len(data) < 14:
        raise FormatError("cannot be decoded: the file is truncated")
    if kind == b"VP8X":
        return _number(data[4:7]) + 1, _number(data[7:10]) + 1
    if kind == b"VP8L":
        bits = _number(data[1:5])
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return _number(data[6:8]) & 0x3FFF, _number(data[8:10]) & 0x3FFF


def _number(part: bytes) -> int:
    return int.from_bytes(part, "little")


def _is_deep(picture: Image.Image) -> bool:
    """Tell whether a picture is grey of more than 8 bits; raises for floating point."""
    if picture.mode == "F":
        raise FormatError("has floating-point pixels, whose range is not known")
    return picture.mode.startswith("I")


def _levels(picture: Image.Image) -> Levels:
    """Return the values (H, W) of grey of more than 8 bits; white is the highest, not the lowest.

    Pillow leaves a TIFF of 16 bits whose white is 0 as it is.
    """
    levels = np.asarray(picture)
    tags = getattr(picture, "tag_v2", {})
    inverted = picture.format == "TIFF" and int(tags.get(PHOTOMETRIC, 1)) == 0
    return 0xFFFF - levels if inverted and picture.mode.startswith("I;16") else levels


def _lost_bits(content: bytes, picture: Image.Image) -> bool:
    """Tell whether Pillow has read the upper 8 of 16 bits a channel."""
    if picture.format == "PNG":
        return content[24:25] == b"\x10"  # the bit depth in IHDR, the first chunk
    bits = getattr(picture, "tag_v2", {}).get(BITS_PER_SAMPLE, (8,))
    return picture.format == "TIFF" and max(np.atleast_1d(bits)) > 8
