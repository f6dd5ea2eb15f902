"""The stored pixels of a DICOM frame: out of plain bytes, RLE, JPEG, JPEG-LS or JPEG 2000."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diascope.data.formats import codestreams
from diascope.data.formats.base import FormatError, Levels
from diascope.data.formats.elements import BIG, EXPLICIT, IMPLICIT

NATIVE = (IMPLICIT, EXPLICIT, BIG)
RLE = "1.2.840.10008.1.2.5"
JPEG = tuple(f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 57, 70))
JPEG_LS = tuple(f"1.2.840.10008.1.2.4.{end}" for end in (80, 81))
JPEG_2000 = tuple(f"1.2.840.10008.1.2.4.{end}" for end in (90, 91))
READ = "uncompressed, deflated, RLE, JPEG (baseline, extended, lossless), JPEG-LS and JPEG 2000"
ITEM, END = 0xFFFEE000, 0xFFFEE0DD


@dataclass(frozen=True)
class Stored:
    """Pixels as a file holds them.

    content: the value of PixelData. words: it is made of words of 16 bits. shape: (H, W) or
    (H, W, 3). bits, after `shift` lower ones, of the `allocated` hold a value, in two's complement
    if `signed`. planar: the channels lie one after the other.
    """

    content: bytes
    words: bool
    syntax: str
    shape: tuple[int, ...]
    photometric: str
    allocated: int
    bits: int
    shift: int
    signed: bool
    planar: bool

    @property
    def lowest(self) -> int:
        """The lowest value that can be stored."""
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def highest(self) -> int:
        """The highest value that can be stored."""
        return self.lowest + (1 << self.bits) - 1

    def values(self) -> Levels:
        """Return grey values (H, W), or colours (H, W, 3) uint8 in RGB; raises `FormatError`."""
        in_rgb = not self.photometric.startswith("YBR_FULL")
        if self.syntax in NATIVE:
            found = self._native()
        elif self.syntax == RLE:
            found = self._planes(codestreams.rle(self._frame(), self._count(), self._bytes()))
        elif self.syntax in JPEG:
            found, in_rgb = codestreams.jpeg(self._frame(), self.shape, self.photometric == "RGB")
        elif self.syntax in JPEG_LS:
            found = codestreams.jpeg_ls(self._frame(), self.shape)
        elif self.syntax in JPEG_2000:
            found, transformed = codestreams.jpeg_2000(self._frame(), self.shape)
            in_rgb = in_rgb or transformed
        else:
            raise FormatError(f"is compressed in a way that is not read: known are {READ}")
        if len(self.shape) == 2:
            return self._signed(found)
        return found if in_rgb else _to_rgb(found)

    def _count(self) -> int:
        return self.shape[0] * self.shape[1]

    def _bytes(self) -> int:
        """Return the bytes of a pixel."""
        return self.allocated // 8 * (3 if len(self.shape) == 3 else 1)

    def _native(self) -> Levels:
        """Return uncompressed pixels; colour at half the width is spread out."""
        half = self.photometric == "YBR_FULL_422"
        need = self._count() * (2 if half else self._bytes())
        if len(self.content) < need:
            raise FormatError(
                f"is truncated: {len(self.content):,} of the {need:,} bytes of its pixels are there"
            )
        big = self.syntax == BIG
        if self.allocated == 16:
            return np.frombuffer(self.content, ">u2" if big else "<u2", self._count()).reshape(
                self.shape
            )
        octets = np.frombuffer(self.content, np.uint8)
        if big and self.words:
            octets = octets[: len(octets) // 2 * 2].reshape(-1, 2)[:, ::-1].reshape(-1)
            if len(octets) < need:
                raise FormatError("is truncated: the last byte of its pixels is missing")
        octets = octets[:need]
        if half:
            return self._spread_out(octets)
        if self.planar and len(self.shape) == 3:
            return octets.reshape(3, *self.shape[:2]).transpose(1, 2, 0)
        return octets.reshape(self.shape)

    def _spread_out(self, octets: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return (H, W, 3) of pairs of pixels that share their colour: Y, Y, Cb, Cr."""
        if self.shape[1] % 2:
            raise FormatError("is YBR_FULL_422 of odd width, which cannot be: the file is damaged")
        pairs = octets.reshape(-1, 4)
        whole = np.stack([pairs[:, [0, 2, 3]], pairs[:, [1, 2, 3]]], axis=1)
        return whole.reshape(self.shape)

    def _planes(self, planes: NDArray[np.uint8]) -> Levels:
        """Return the pixels of RLE's planes (P, H * W): of each channel the high byte first."""
        if len(self.shape) == 3:
            return planes.reshape(3, *self.shape[:2]).transpose(1, 2, 0)
        if self.allocated == 8:
            return planes.reshape(self.shape)
        words = planes[0].astype(np.uint16) << 8 | planes[1]
        return np.asarray(words.reshape(self.shape))

    def _frame(self) -> bytes:
        """Return the compressed frame: all items but the first, which is a table of offsets."""
        parts, place, content = [], 0, self.content
        while place + 8 <= len(content):
            group, element, length = struct.unpack_from("<HHL", content, place)
            place += 8
            if group << 16 | element == END:
                break
            if group << 16 | element != ITEM or place + length > len(content):
                raise FormatError("is truncated: its compressed pixels end within an item")
            parts.append(content[place : place + length])
            place += length
        if len(parts) < 2:
            raise FormatError("is truncated: its compressed pixels are missing")
        return b"".join(parts[1:])

    def _signed(self, values: Levels) -> Levels:
        """Return the bits that hold a value, with their sign."""
        raw = values.astype(np.int32)
        raw = raw >> self.shift & ((1 << self.bits) - 1)
        return np.where(raw > self.highest, raw - (1 << self.bits), raw) if self.signed else raw


def _to_rgb(values: Levels) -> NDArray[np.uint8]:
    """Return (H, W, 3) in RGB of luma and colour differences of full range (ITU-R 601)."""
    octets = np.ascontiguousarray(values.astype(np.uint8))
    return np.asarray(Image.fromarray(octets, "YCbCr").convert("RGB"))
