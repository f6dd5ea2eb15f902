"""DICOM files of one frame, as they are meant to be seen.

Grey goes through the rescale or the modality table, then the file's first table or window of
interest, else over the range of the image (`formats.voi`). Overlays, icons and presentation states
are left out. DICOM standard, parts 3 (C.7.6.3, C.11.1, C.11.2) and 5 (8, annex A).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from diascope.data.formats.base import FormatError, check_size
from diascope.data.formats.elements import BIG, integer, parse, reading, tag_of, word
from diascope.data.formats.stored import Stored
from diascope.data.formats.voi import GreySteps, Palette

if TYPE_CHECKING:
    from pydicom.dataset import Dataset as Elements

PALETTE = "PALETTE COLOR"
GREY = ("MONOCHROME1", "MONOCHROME2", PALETTE)
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
KEYWORDS = (
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "FloatPixelData",
    "DoubleFloatPixelData",
    "PixelData",
)


@dataclass(frozen=True)
class Frame:
    """The one frame of a file: its stored pixels, and what makes them grey or coloured."""

    stored: Stored
    steps: GreySteps | None
    palette: Palette | None

    def image(self) -> NDArray[np.uint8]:
        """Return the picture, (H, W, 1) or (H, W, 3)."""
        values = self.stored.values()
        if self.palette is not None:
            return self.palette.image(values)
        if self.steps is not None:
            return self.steps.image(values, self.stored.lowest, self.stored.highest)[..., None]
        return values.astype(np.uint8)


def image(content: bytes) -> NDArray[np.uint8]:
    """Return the picture in a DICOM file, (H, W, 1) or (H, W, 3); raises `FormatError`."""
    with reading():
        frame = read_frame(content)
    try:
        return frame.image()
    except FormatError:
        raise
    except MemoryError:
        raise FormatError("takes more memory than there is") from None
    except Exception as error:  # decoders raise almost anything on broken pixels
        kind = type(error).__name__
        raise FormatError(f"its pixels cannot be decoded ({kind}): the file is damaged") from None


def read_frame(content: bytes) -> Frame:
    """Return the frame of a file, not yet decoded; to be called within `reading`."""
    keywords = (*KEYWORDS, *GreySteps.KEYWORDS, *Palette.KEYWORDS)
    tags = [tag for tag in map(tag_of, keywords) if tag is not None]
    syntax, elements = parse(io.BytesIO(content), tags)
    photometric = _photometric(elements)
    stored = _stored(elements, syntax, photometric)
    order = ">" if syntax == BIG else "<"
    grey = photometric.startswith("MONOCHROME")
    return Frame(
        stored,
        GreySteps.read(elements, photometric, order) if grey else None,
        Palette.read(elements, order) if photometric == PALETTE else None,
    )


def _photometric(elements: Elements) -> str:
    """Return what the values mean; raises `FormatError` for no image, or one of another kind."""
    if "FloatPixelData" in elements or "DoubleFloatPixelData" in elements:
        raise FormatError("has floating-point pixels, whose range is not known")
    if "PixelData" not in elements:
        raise FormatError(
            "PixelData (7FE0,0010) is missing: the file holds no image, or it is truncated"
        )
    frames = integer(elements, "NumberOfFrames", 1)
    if frames > 1:
        raise FormatError(f"holds {frames} frames: save the one that is meant as its own file")
    photometric = word(elements, "PhotometricInterpretation")
    if not photometric:
        raise FormatError(
            "PhotometricInterpretation (0028,0004) is missing: nothing says which value is white"
        )
    if photometric not in GREY + COLOUR:
        known = ", ".join(GREY + COLOUR)
        raise FormatError(f"PhotometricInterpretation (0028,0004) is none of {known}")
    return photometric


def _stored(elements: Elements, syntax: str, photometric: str) -> Stored:
    """Return the pixels as stored; raises `FormatError` where the header contradicts itself."""
    rows, columns = integer(elements, "Rows"), integer(elements, "Columns")
    check_size(columns, rows)
    grey = photometric in GREY
    samples = integer(elements, "SamplesPerPixel", 1 if grey else 3)
    if samples != (1 if grey else 3):
        raise FormatError(f"has {samples} samples a pixel, which do not fit {photometric}")
    allocated = integer(elements, "BitsAllocated")
    bits = integer(elements, "BitsStored", allocated)
    high = integer(elements, "HighBit", bits - 1)
    if allocated not in (8, 16):
        what = "as a segmentation has" if allocated == 1 else "which are not read"
        raise FormatError(f"has pixels of {allocated} bits, {what}: save them with 8 or 16")
    if not 1 <= bits <= high + 1 <= allocated:
        raise FormatError("BitsAllocated, BitsStored and HighBit (0028,0100-0102) disagree")
    if not grey and (allocated, bits) != (8, 8):
        raise FormatError(f"has colours of {bits} bits a channel: save them with 8")
    element = elements["PixelData"]
    return Stored(
        content=bytes(element.value or b""),
        words=str(element.VR) == "OW",
        syntax=syntax,
        shape=(rows, columns) if grey else (rows, columns, 3),
        photometric=photometric,
        allocated=allocated,
        bits=bits,
        shift=high + 1 - bits,
        signed=integer(elements, "PixelRepresentation", 0) == 1,
        planar=integer(elements, "PlanarConfiguration", 0) == 1,
    )
