"""Compressed pixels, whose own headers are held against the size that the file declares."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

from diascope.data.formats.base import FormatError, Levels

MAX_TILES = 16_384
MAX_SCANS = 100
SOI, EOI, SOC = b"\xff\xd8", b"\xff\xd9", b"\xff\x4f\xff\x51"
JP2 = b"\x00\x00\x00\x0cjP  "
LOSSLESS = 0xC3
NO_SIZE = (0xC4, 0xC8, 0xCC)  # markers among those of frame headers that are none


def jpeg(content: bytes, shape: tuple[int, ...], rgb: bool) -> tuple[Levels, bool]:
    """Return a JPEG frame of `shape`, lossy or lossless, and whether its channels are RGB.

    rgb: they are, unless the frame says otherwise (an Adobe segment; a JFIF one if it is lossy);
    else they are luma and colour differences.
    """
    import imagecodecs

    in_rgb = _check_jpeg(content, shape, rgb)
    space = "GRAYSCALE" if len(shape) == 2 else "RGB" if in_rgb else "YCBCR"
    found = imagecodecs.jpeg8_decode(content, colorspace=space, outcolorspace=space)
    return _fitting(np.asarray(found), shape), in_rgb


def jpeg_ls(content: bytes, shape: tuple[int, ...]) -> Levels:
    """Return a JPEG-LS frame of `shape`, its channels as they are."""
    import imagecodecs

    _check_jpeg(content, shape, rgb=True)
    return _fitting(np.asarray(imagecodecs.jpegls_decode(content)), shape)


def jpeg_2000(content: bytes, shape: tuple[int, ...]) -> tuple[Levels, bool]:
    """Return a JPEG 2000 frame of `shape`, and whether its channels came as RGB.

    They do where the codestream holds the standard's transform of them, which is undone here.
    """
    import imagecodecs

    start = content.find(SOC)
    if start < 0 or (start > 0 and not content.startswith(JP2)):
        raise FormatError("its pixels are no JPEG 2000: the file is damaged")
    content = content[start:]
    in_rgb = _check_jpeg_2000(content, shape)
    found = np.asarray(imagecodecs.jpeg2k_decode(content))
    return _fitting(found, shape), in_rgb


def rle(content: bytes, count: int, planes: int) -> NDArray[np.uint8]:
    """Return the planes (P, N) of an RLE frame, N = `count` bytes each (DICOM part 5, annex G)."""
    if len(content) < 64:
        raise FormatError("is truncated: the header of its RLE pixels is cut")
    segments, *starts = struct.unpack("<16L", content[:64])
    if segments != planes:
        raise FormatError(f"has {segments} RLE segments where its pixels take {planes}")
    ends = [*starts[1:planes], len(content)]
    found = np.empty((planes, count), np.uint8)
    for plane, (start, end) in enumerate(zip(starts, ends, strict=False)):
        if not 64 <= start <= end <= len(content):
            raise FormatError("its RLE segments lie outside of its pixels: the file is damaged")
        found[plane] = _unpacked(content[start:end], count)
    return found


def _unpacked(segment: bytes, count: int) -> NDArray[np.uint8]:
    """Return the first `count` bytes of a segment packed as Apple's PackBits does."""
    import imagecodecs

    try:
        fast = imagecodecs.packbits_decode(segment, out=count)
        if len(fast) == count:
            return np.frombuffer(fast, np.uint8)
    except imagecodecs.ImcdError:  # so for a filler after the last run, too
        pass
    found, place, size = bytearray(), 0, len(segment)
    while len(found) < count and place < size:
        run = segment[place]
        if run < 128:
            found += segment[place + 1 : place + 2 + run]
            place += 2 + run
        else:
            if run > 128:
                found += segment[place + 1 : place + 2] * (257 - run)
            place += 2 if run > 128 else 1
    if len(found) < count:
        raise FormatError(f"is truncated: {len(found):,} of {count:,} bytes of an RLE segment")
    return np.frombuffer(found, np.uint8, count)


def _check_jpeg(content: bytes, shape: tuple[int, ...], rgb: bool) -> bool:
    """Return whether the channels of a JPEG frame are RGB; `rgb` where it says nothing.

    Raises `FormatError` for one of another size than `shape`, and for one that is cut.
    """
    if not content.startswith(SOI):
        raise FormatError("its pixels are no JPEG: the file is damaged")
    if EOI not in content[-64:]:
        raise FormatError("is truncated: its JPEG pixels have no end")
    if content.count(b"\xff\xda") > MAX_SCANS:
        raise FormatError(f"its JPEG pixels have more than {MAX_SCANS} scans")
    adobe, jfif, place = None, False, 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # a filler
            place += 1
            continue
        length = int.from_bytes(content[place + 2 : place + 4], "big")
        part = content[place + 4 : place + 2 + length]
        if marker == 0xEE and part[:5] == b"Adobe" and len(part) >= 12:
            adobe = part[11] == 0
        elif marker == 0xE0 and part[:4] == b"JFIF":
            jfif = True
        elif marker == 0xF7 or (marker >> 4 == 0xC and marker not in NO_SIZE):
            if len(part) < 6:
                break
            height, width, channels = struct.unpack(">xHHB", part[:6])
            _same(height, width, channels, shape)
            return adobe if adobe is not None else rgb and not (jfif and marker != LOSSLESS)
        place += 2 + length
    raise FormatError("its JPEG pixels do not say their size: the file is damaged")


def _check_jpeg_2000(content: bytes, shape: tuple[int, ...]) -> bool:
    """Return whether a codestream holds channels transformed from RGB.

    Raises `FormatError` for one of another size than `shape`, of channels of different sizes, of
    more than 16 bits, and of tiles without number.
    """
    if len(content) < 42 + 3 * (3 if len(shape) == 3 else 1):
        raise FormatError("is truncated: the header of its JPEG 2000 pixels is cut")
    right, bottom, left, top, tile_w, tile_h, tile_left, tile_top, channels = struct.unpack_from(
        ">8LH", content, 8
    )
    _same(bottom - top, right - left, channels, shape)
    if not (tile_w and tile_h):
        raise FormatError("its JPEG 2000 pixels have tiles of no size: the file is damaged")
    tiles = -(-(right - tile_left) // tile_w) * -(-(bottom - tile_top) // tile_h)
    if tiles > MAX_TILES:
        raise FormatError(f"its JPEG 2000 pixels lie in {tiles:,} tiles")
    for depth, across, down in struct.iter_unpack("3B", content[42 : 42 + 3 * channels]):
        if (depth & 0x7F) + 1 > 16 or (across, down) != (1, 1):
            raise FormatError("has JPEG 2000 pixels of over 16 bits or of unequal channels")
    place = 4 + int.from_bytes(content[4:6], "big")
    while place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0x90:
        if content[place + 1] == 0x52:  # the coding style
            return channels == 3 and content[place + 8 : place + 9] == b"\x01"
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    raise FormatError("its JPEG 2000 pixels do not say how they are coded: the file is damaged")


def _same(height: int, width: int, channels: int, shape: tuple[int, ...]) -> None:
    """Raise `FormatError` unless compressed pixels have the declared shape."""
    declared = (*shape, 1)[:3]
    if (height, width, channels) != declared:
        raise FormatError(
            f"declares {declared[1]}x{declared[0]} pixels of {declared[2]} channels, and its "
            f"compressed pixels are {width}x{height} of {channels}: the file is damaged"
        )


def _fitting(found: NDArray[np.generic], shape: tuple[int, ...]) -> Levels:
    """Return decoded pixels, which have `shape` and are whole numbers; else a `FormatError`."""
    if found.shape != shape or found.dtype.kind not in "ui" or found.dtype.itemsize > 2:
        raise FormatError("its compressed pixels are not what they declare: the file is damaged")
    return found  # type: ignore[return-value]
