"""DICOM files made for tests, with identifiers in every place that a clinic fills."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence

IMPLICIT, EXPLICIT, BIG = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2"))
DEFLATED, RLE = "1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.5"
BASELINE, EXTENDED, LOSSLESS = (f"1.2.840.10008.1.2.4.{end}" for end in (50, 51, 70))
JPEG_LS, JPEG_2000 = (f"1.2.840.10008.1.2.4.{end}" for end in (80, 90))

SECRETS = {
    "PatientName": "Mustermann^Erika",
    "PatientID": "KH-4711-0815",
    "PatientBirthDate": "19640812",
    "PatientAddress": "Heidestrasse 17, Koeln",
    "OtherPatientIDs": "SOZVERS-65070812M004",
    "AccessionNumber": "ACC2024999123",
    "StudyDate": "20240229",
    "StudyTime": "131415.926",
    "StudyID": "STUDY-77441",
    "ReferringPhysicianName": "Quacksalber^Hieronymus",
    "InstitutionName": "Klinik Sankt Nimmerlein",
    "StudyInstanceUID": "1.2.276.0.7230010.3.1.2.8323329.4711",
    "SeriesInstanceUID": "1.2.276.0.7230010.3.1.3.8323329.4712",
    "SOPInstanceUID": "1.2.276.0.7230010.3.1.4.8323329.4713",
    "DeviceSerialNumber": "SN-99887766",
    "StudyDescription": "Thorax wegen Verdacht auf Blauhusten",
    "PatientComments": "Nachbarin von Frau Holle",
}


def words() -> list[str]:
    """Every part of the identifiers that must be found nowhere."""
    parts = [part for value in SECRETS.values() for part in value.replace("^", " ").split()]
    return [*SECRETS.values(), *(part for part in parts if len(part) > 5)]


def dicom(
    pixels: np.ndarray | bytes,
    syntax: str = EXPLICIT,
    *,
    drop: tuple[str, ...] = (),
    preamble: bool = True,
    **elements: Any,
) -> bytes:
    """The bytes of a file of `pixels`: an array, or a compressed frame with Rows and Columns.

    `elements` are further ones, or others in place of those that follow from the array.
    """
    ds = Dataset()
    for keyword, value in SECRETS.items():
        setattr(ds, keyword, value)
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
    private = ds.private_block(0x0099, "Klinik Nimmerlein", create=True)
    private.add_new(1, "LO", SECRETS["PatientName"])
    request = Dataset()
    request.AccessionNumber = SECRETS["AccessionNumber"]
    ds.RequestAttributesSequence = Sequence([request])
    if isinstance(pixels, np.ndarray):
        of_array(ds, pixels)
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    if isinstance(pixels, np.ndarray):
        raw = pixels.astype(pixels.dtype.newbyteorder(">")) if syntax == BIG else pixels
        content = raw.tobytes()
        ds.PixelData = content + b"\0" * (len(content) % 2)
        ds["PixelData"].VR = "OB" if pixels.itemsize == 1 else "OW"
    else:
        ds.PixelData = encapsulate([pixels])
        ds["PixelData"].VR = "OB"
        ds["PixelData"].is_undefined_length = True
    for keyword in drop:
        delattr(ds, keyword)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = SECRETS["SOPInstanceUID"]
    ds.file_meta.TransferSyntaxUID = syntax
    return saved(ds, preamble)


def of_array(ds: Dataset, pixels: np.ndarray) -> None:
    """Set the elements that follow from an array (H, W) or (H, W, 3)."""
    ds.Rows, ds.Columns = pixels.shape[:2]
    ds.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    ds.PhotometricInterpretation = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    if pixels.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.BitsAllocated = ds.BitsStored = 8 * pixels.itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.PixelRepresentation = int(pixels.dtype.kind == "i")


def saved(ds: Dataset, preamble: bool = True) -> bytes:
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    content = buffer.getvalue()
    if preamble:
        return content
    group_length = struct.unpack_from("<L", content, 140)[0]
    return content[144 + group_length :]


def frame(shape: tuple[int, ...], **elements: Any) -> dict[str, Any]:
    """The elements that a compressed frame of unsigned 8 bits has; `elements` override."""
    colour = len(shape) == 3
    return {
        "Rows": shape[0],
        "Columns": shape[1],
        "SamplesPerPixel": 3 if colour else 1,
        "PhotometricInterpretation": "RGB" if colour else "MONOCHROME2",
        **({"PlanarConfiguration": 0} if colour else {}),
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        **elements,
    }


def deep(shape: tuple[int, int], bits: int = 12, **elements: Any) -> dict[str, Any]:
    """The elements of a compressed grey frame of more than 8 bits."""
    return frame(shape, BitsAllocated=16, BitsStored=bits, HighBit=bits - 1, **elements)


def rle(planes: list[np.ndarray]) -> bytes:
    """An RLE frame of planes of bytes, in runs and literals."""
    segments = [_packed(plane.tobytes()) for plane in planes]
    starts = np.cumsum([64] + [len(segment) for segment in segments])[:-1]
    return struct.pack(f"<{1 + len(planes)}L", len(planes), *starts).ljust(64, b"\0") + b"".join(
        segments
    )


def _packed(data: bytes) -> bytes:
    found, place = bytearray(), 0
    while place < len(data):
        run = 1
        while run < 128 and data[place : place + 1] * (run + 1) == data[place : place + run + 1]:
            run += 1
        if run > 1:
            found += bytes([257 - run, data[place]])
            place += run
        else:
            part = data[place : place + 3]
            found += bytes([len(part) - 1]) + part
            place += len(part)
    return bytes(found + b"\0" * (len(found) % 2))
