"""Every reader with files that are cut, changed, or far larger inside than out.

What comes back is an image of the declared size or an error of ours, in little time and memory.
"""

from __future__ import annotations

import io
import re
import resource
import struct
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from PIL import Image
from tests.data import dicoms, trees

from diascope.data import ReadError
from diascope.data.readers import FileReader

COLOUR = trees.pixels(2, 40, 30)
GREY = np.ascontiguousarray(COLOUR[..., 1])
DEEP = (GREY.astype(np.uint16) * 257) ^ 77
SECONDS = 2.0  # for one file, on a busy machine
CHANGES = 60


def picture(array: np.ndarray, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def cmyk() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).convert("CMYK").save(buffer, "JPEG")
    return buffer.getvalue()


def rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return picture(COLOUR, "JPEG", exif=exif)


def palette() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(COLOUR).quantize(32).save(buffer, "PNG", transparency=b"\0\x80")
    return buffer.getvalue()


def compressed(syntax: str, frame: bytes, **elements: object) -> bytes:
    shape = COLOUR.shape if elements.pop("colour", False) else GREY.shape
    return dicoms.dicom(bytes(frame), syntax, **dicoms.frame(shape, **elements))


SEEDS = {
    "jpeg": lambda: picture(COLOUR, "JPEG"),
    "jpeg-grey-progressive": lambda: picture(GREY, "JPEG", progressive=True),
    "jpeg-cmyk": cmyk,
    "jpeg-rotated": rotated,
    "png": lambda: picture(COLOUR, "PNG"),
    "png-16": lambda: picture(DEEP, "PNG"),
    "png-palette": palette,
    "tiff": lambda: picture(COLOUR, "TIFF"),
    "tiff-16-deflate": lambda: picture(DEEP, "TIFF", compression="tiff_adobe_deflate"),
    "tiff-lzw": lambda: picture(COLOUR, "TIFF", compression="tiff_lzw"),
    "bmp": lambda: picture(COLOUR, "BMP"),
    "gif": lambda: picture(GREY, "GIF"),
    "webp": lambda: picture(COLOUR, "WEBP"),
    "dicom": lambda: dicoms.dicom(DEEP, WindowCenter=30000, WindowWidth=9000),
    "dicom-implicit": lambda: dicoms.dicom(DEEP, dicoms.IMPLICIT, RescaleSlope=2),
    "dicom-deflated": lambda: dicoms.dicom(GREY, dicoms.DEFLATED),
    "dicom-bare": lambda: dicoms.dicom(GREY, preamble=False),
    "dicom-rle": lambda: compressed(dicoms.RLE, dicoms.rle([GREY])),
    "dicom-jpeg": lambda: compressed(
        dicoms.BASELINE, picture(COLOUR, "JPEG"), colour=True,
        PhotometricInterpretation="YBR_FULL_422",
    ),
    "dicom-lossless": lambda: compressed(
        dicoms.LOSSLESS, imagecodecs.jpeg8_encode(GREY, lossless=True)
    ),
    "dicom-jpeg-ls": lambda: compressed(dicoms.JPEG_LS, imagecodecs.jpegls_encode(GREY)),
    "dicom-jpeg-2000": lambda: compressed(
        dicoms.JPEG_2000, imagecodecs.jpeg2k_encode(GREY, codecformat="j2k", level=0)
    ),
}  # fmt: skip


def changed(content: bytes, draw: np.random.Generator) -> bytes:
    """The content with bytes or runs altered, removed, doubled, or its end cut off."""
    data = bytearray(content)
    for _ in range(int(draw.integers(1, 6))):
        at = int(draw.integers(len(data) or 1))
        if draw.random() < 0.5:  # headers are where a reader is led astray
            at = min(at, int(draw.integers(1, 400)))
        kind = int(draw.integers(5))
        if kind == 0 and data:
            data[at % len(data)] ^= 1 << int(draw.integers(8))
        elif kind == 1 and data:
            data[at % len(data)] = int(draw.choice([0, 1, 127, 128, 255]))
        elif kind == 2:
            data[at : at + 4] = struct.pack(
                "<L", int(draw.choice([0, 1, 65535, 1 << 31, 2**32 - 1]))
            )
        elif kind == 3:
            del data[at : at + int(draw.integers(1, 40))]
        else:
            data = data[: max(at, 1)] if draw.random() < 0.3 else data[:at] + data[at // 2 :]
    return bytes(data)


def attempt(read: Callable[[str], np.ndarray]) -> np.ndarray | ReadError:
    """What comes of reading the file: an array, or an error of ours; anything else is raised."""
    began = time.perf_counter()
    try:
        found = read("file")
    except ReadError as error:
        return error
    finally:
        assert time.perf_counter() - began < SECONDS
    return found


def sound(found: np.ndarray | ReadError, dimensions: int) -> bool:
    """Tell whether an array or an error is such as a reader promises."""
    if isinstance(found, ReadError):
        leaks = [word for word in dicoms.words() if word in found.reason]
        return found.path == "file" and "\n" not in found.reason and not leaks
    kinds = (np.uint8,) if dimensions == 3 else (np.bool_,)
    return found.size > 0 and found.dtype in kinds and found.ndim == dimensions


@pytest.mark.parametrize("name", SEEDS)
def test_files_that_are_cut_or_changed(name: str, tmp_path: Path) -> None:
    content = SEEDS[name]()
    reader = FileReader(tmp_path, depth="stretch")
    draw = np.random.default_rng(zlib.crc32(name.encode()))
    (tmp_path / "file").write_bytes(content)
    assert reader.image("file").shape[:2] in ((30, 40), (40, 30))
    cuts = [content[: int(share * len(content))] for share in np.linspace(0, 0.98, 12)]
    refused = 0
    for number, bad in enumerate(cuts + [changed(content, draw) for _ in range(CHANGES)]):
        (tmp_path / "file").write_bytes(bad)
        found, mask = attempt(reader.image), attempt(reader.mask)
        assert sound(found, 3), (number, found)
        assert sound(mask, 2), (number, mask)
        refused += isinstance(found, ReadError)
    assert refused > 6


@pytest.mark.parametrize("name", SEEDS)
def test_a_declared_size_is_kept(name: str, tmp_path: Path) -> None:
    content = SEEDS[name]()
    draw = np.random.default_rng(1 + zlib.crc32(name.encode()))
    size = (30, 40) if name == "jpeg-rotated" else (40, 30)
    reader = FileReader(tmp_path, size, depth="stretch")
    for _ in range(CHANGES // 2):
        (tmp_path / "file").write_bytes(changed(content, draw))
        try:
            assert reader.image("file").shape[1::-1] == size
        except ReadError:
            continue


FRAMES = {
    "rle": (dicoms.RLE, lambda: dicoms.rle([GREY])),
    "jpeg": (dicoms.BASELINE, lambda: picture(GREY, "JPEG")),
    "lossless": (dicoms.LOSSLESS, lambda: imagecodecs.jpeg8_encode(GREY, lossless=True)),
    "jpeg-ls": (dicoms.JPEG_LS, lambda: imagecodecs.jpegls_encode(GREY)),
    "jpeg-2000": (
        dicoms.JPEG_2000,
        lambda: imagecodecs.jpeg2k_encode(GREY, codecformat="j2k", level=0),
    ),
}


@pytest.mark.parametrize("name", FRAMES)
def test_compressed_frames_that_are_changed_in_a_sound_file(name: str, tmp_path: Path) -> None:
    syntax, encode = FRAMES[name]
    frame, reader = bytes(encode()), FileReader(tmp_path, (40, 30))
    draw = np.random.default_rng(2 + zlib.crc32(name.encode()))
    outcomes = set()
    for _ in range(CHANGES):
        bad = changed(frame, draw) + bytes(len(frame) % 2)
        (tmp_path / "file").write_bytes(dicoms.dicom(bad, syntax, **dicoms.frame(GREY.shape)))
        found = attempt(reader.image)
        assert sound(found, 3), found
        outcomes.add(type(found))
    assert outcomes == {ReadError, np.ndarray}


def png(width: int, height: int, depth: int = 16) -> bytes:
    """A PNG of a few kilobytes that declares any size, its pixels all 0."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">L", len(data)) + kind + data + struct.pack(">L", zlib.crc32(kind + data))
        )

    head = struct.pack(">2L5B", width, height, depth, 0, 0, 0, 0)
    pixels = zlib.compress(bytes(1 << 20), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    )


def tiff(width: int, height: int) -> bytes:
    """A TIFF of deflated strips that declares any size."""
    data = zlib.compress(bytes(1 << 20), 9)
    tags = [
        (256, 4, width), (257, 4, height), (258, 3, 8), (259, 3, 8), (262, 3, 1), (273, 4, 8),
        (277, 3, 1), (278, 4, height), (279, 4, len(data)),
    ]  # fmt: skip
    place = 8 + len(data)
    entries = b"".join(struct.pack("<HHLL", tag, kind, 1, value) for tag, kind, value in tags)
    head = struct.pack("<2sHL", b"II", 42, place)
    return head + data + struct.pack("<H", len(tags)) + entries + bytes(4)


def jpeg_2000(width: int, height: int, tile: int = 0) -> bytes:
    """A JPEG 2000 frame of 40x30 whose header is changed to declare other sizes."""
    coded = bytearray(imagecodecs.jpeg2k_encode(GREY, codecformat="j2k", level=0))
    coded[8:16] = struct.pack(">2L", width, height)
    coded[24:32] = struct.pack(">2L", tile or width, tile or height)
    return bytes(coded)


def webp(width: int, height: int) -> bytes:
    head = b"VP8X" + struct.pack("<LL", 10, 0) + (width - 1).to_bytes(3, "little")
    chunk = head + (height - 1).to_bytes(3, "little") + bytes(64)
    return b"RIFF" + struct.pack("<L", len(chunk) + 4) + b"WEBP" + chunk


def bombs() -> dict[str, bytes]:
    huge = {"Rows": 60000, "Columns": 60000}
    large = dicoms.frame(GREY.shape, Rows=8000, Columns=8000)
    j2k = dicoms.JPEG_2000
    return {
        "png": png(60_000, 60_000),
        "tiff": tiff(60_000, 60_000),
        "webp": webp(16_000, 16_000),
        "dicom": dicoms.dicom(GREY, **huge),
        "dicom-rle": dicoms.dicom(dicoms.rle([GREY]), dicoms.RLE, **large),
        "dicom-jpeg": dicoms.dicom(picture(GREY, "JPEG"), dicoms.BASELINE, **large),
        "dicom-jpeg-2000": dicoms.dicom(jpeg_2000(60_000, 60_000), j2k, **dicoms.frame(GREY.shape)),
        "dicom-jpeg-2000-huge": dicoms.dicom(
            jpeg_2000(60_000, 60_000), j2k, **dicoms.frame(GREY.shape) | huge
        ),
        "dicom-jpeg-2000-tiles": dicoms.dicom(jpeg_2000(8000, 8000, 1), j2k, **large),
    }


@pytest.mark.parametrize("name", bombs())
def test_what_declares_a_huge_size_takes_no_memory(name: str, tmp_path: Path) -> None:
    (tmp_path / "bomb").write_bytes(bombs()[name])
    refused(FileReader(tmp_path), "bomb")


@contextmanager
def little_memory(room: int = 96 << 20) -> Iterator[None]:
    """Leave this process `room` bytes of addresses beyond those that it has."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + room, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def refused(reader: FileReader, path: str) -> None:
    """Assert that a file is refused in little time and memory, and not for want of memory."""
    with pytest.raises(ReadError):  # once, so that what is imported is there
        reader.image(path)
    began = time.perf_counter()
    with little_memory(), pytest.raises(ReadError) as error:
        reader.image(path)
    assert time.perf_counter() - began < SECONDS
    assert re.search("pixels|truncated|larger|packed|declares|CRC", error.value.reason)
    assert "memory" not in error.value.reason


def test_zip_entries_that_grow(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
        file.writestr("large.png", bytes(1000))
        file.writestr("small.png", bytes(1 << 27))
        file.writestr("other.png", bytes(1 << 20), zipfile.ZIP_BZIP2)
    content = bytearray((tmp_path / "z.zip").read_bytes())
    for name, size in ((b"large.png", 1 << 30), (b"small.png", 1000)):
        at = content.rindex(name) - 46  # its entry in the directory
        content[at + 24 : at + 28] = struct.pack("<L", size)
    (tmp_path / "z.zip").write_bytes(content)
    reader = FileReader(tmp_path)
    for name in ("large.png", "small.png", "other.png"):
        refused(reader, f"z.zip!{name}")


def test_deflated_dicom_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diascope.data.formats.elements.MAX_BYTES", 1 << 20)
    bomb = dicoms.dicom(np.zeros((1500, 1500), np.uint8), dicoms.DEFLATED)
    assert len(bomb) < 20_000
    (tmp_path / "bomb").write_bytes(bomb)
    with pytest.raises(ReadError, match="larger than 512|larger than 1 MiB when unpacked"):
        FileReader(tmp_path).image("bomb")


def test_many_scans_are_refused(tmp_path: Path) -> None:
    content = picture(COLOUR, "JPEG", progressive=True)
    scan = content.index(b"\xff\xda")
    (tmp_path / "many.jpg").write_bytes(content[:scan] + content[scan:-2] * 30 + content[-2:])
    with pytest.raises(ReadError, match="more than 100 scans"):
        FileReader(tmp_path).image("many.jpg")
