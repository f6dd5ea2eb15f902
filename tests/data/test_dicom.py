"""DICOM: what is drawn of it, and what a person is told of the rest."""

from __future__ import annotations

import ast
import io
import warnings
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from tests.data import dicoms, trees

import diascope
from diascope.data.formats import FormatError, decode
from diascope.data.formats.elements import parse, reading, tag_of, text

RAMP = (np.arange(48 * 40).reshape(40, 48) * 2).astype(np.uint16)  # 0 to 3838: 12 bits
COLOUR = trees.pixels(1, 48, 40)
GREY = np.ascontiguousarray(COLOUR[..., 0])
TWELVE = {"BitsStored": 12, "HighBit": 11}


def grey(content: bytes) -> np.ndarray:
    image = decode(content)
    assert image.dtype == np.uint8
    assert image.shape[2] == 1
    return image[..., 0]


def spread(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    return np.rint((values.astype(float) - low) * 255 / (high - low)).astype(np.uint8)


@pytest.mark.parametrize("syntax", [dicoms.IMPLICIT, dicoms.EXPLICIT, dicoms.BIG, dicoms.DEFLATED])
def test_uncompressed_grey_of_8_and_16_bits(syntax: str) -> None:
    assert (grey(dicoms.dicom(GREY, syntax)) == spread(GREY)).all()
    assert (grey(dicoms.dicom(RAMP, syntax, **TWELVE)) == spread(RAMP)).all()
    signed = RAMP.astype(np.int16) - 1900
    assert (grey(dicoms.dicom(signed, syntax)) == spread(signed)).all()


def test_a_file_without_preamble_is_known_too() -> None:
    assert (grey(dicoms.dicom(GREY, preamble=False)) == spread(GREY)).all()
    assert (grey(dicoms.dicom(GREY, dicoms.IMPLICIT, preamble=False)) == spread(GREY)).all()


def test_signed_values_of_12_bits_and_bits_above_and_below() -> None:
    values = RAMP.astype(np.int32) - 1900
    stored = (values & 0xFFF).astype(np.uint16)
    want = spread(values)
    signed = {**TWELVE, "PixelRepresentation": 1}
    assert (grey(dicoms.dicom(stored, **signed)) == want).all()
    assert (grey(dicoms.dicom(stored | 0xA000, **signed)) == want).all()  # an overlay's bits
    shifted = {"BitsStored": 12, "HighBit": 15, "PixelRepresentation": 1}
    assert (grey(dicoms.dicom(stored << 4 | 7, **shifted)) == want).all()


def test_monochrome1_is_inverted() -> None:
    one = grey(dicoms.dicom(RAMP, PhotometricInterpretation="MONOCHROME1"))
    assert (one == 255 - spread(RAMP)).all()


@pytest.mark.parametrize("function", [None, "LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("width", [1, 2, 700.5])
def test_windows_agree_with_pydicom(function: str | None, width: float) -> None:
    elements = {"RescaleSlope": 2, "RescaleIntercept": -1024.5, "WindowCenter": [300, 9]}
    elements |= {"WindowWidth": [width, 9]} | ({"VOILUTFunction": function} if function else {})
    ds = Dataset()
    dicoms.of_array(ds, RAMP)
    for keyword, value in {**TWELVE, **elements}.items():
        setattr(ds, keyword, value)
    values = apply_modality_lut(RAMP, ds)
    low, high = -1024.5, 4095 * 2 - 1024.5
    with np.errstate(over="ignore"):
        seen = apply_voi_lut(values, ds, 0)
    want = np.rint((seen - low) / (high - low) * 255)
    found = grey(dicoms.dicom(RAMP, **TWELVE, **elements))
    assert np.abs(found - want).max() <= 1
    assert found.max() == 255
    assert (found == 0).any()


def test_tables_take_the_place_of_rescale_and_window() -> None:
    modality, voi = Dataset(), Dataset()
    modality.LUTDescriptor, modality.ModalityLUTType = [4096, 0, 16], "US"
    modality.LUTData = (4095 - np.arange(4096)).tolist()
    voi.LUTDescriptor = [1000, 500, 12]
    voi.LUTData = (np.arange(1000) * 4).tolist()
    wanted = np.rint((4095 - RAMP.astype(int) - 500).clip(0, 999) * 4 * 255 / 4095)
    elements = {"WindowCenter": 5, "WindowWidth": 3}
    for syntax in (dicoms.EXPLICIT, dicoms.IMPLICIT):
        sequences = {
            "ModalityLUTSequence": Sequence([modality]),
            "VOILUTSequence": Sequence([voi]),
        }
        for item in (modality, voi):
            item["LUTDescriptor"].VR = "US"
            item["LUTData"].VR = "US"
        found = grey(dicoms.dicom(RAMP, syntax, **TWELVE, **elements, **sequences))
        assert (found == wanted).all()


def test_a_table_whose_inputs_are_negative() -> None:
    voi = Dataset()
    voi.LUTDescriptor, voi.LUTData = [2000, -1000, 16], (np.arange(2000) * 32).tolist()
    voi["LUTDescriptor"].VR, voi["LUTData"].VR = "SS", "US"
    values = np.linspace(-1500, 1500, 40 * 48).reshape(40, 48).astype(np.int16)
    wanted = np.rint((values.astype(int) + 1000).clip(0, 1999) * 32 * 255 / 65535)
    assert (grey(dicoms.dicom(values, VOILUTSequence=Sequence([voi]))) == wanted).all()


def test_padding_is_black_and_does_not_count() -> None:
    padded = RAMP.astype(np.int16) - 100
    padded[:5] = -2000
    found = grey(dicoms.dicom(padded, PixelPaddingValue=-2000))
    assert (found[5:] == spread(padded[5:])).all()
    assert not found[:5].any()
    white = {"PhotometricInterpretation": "MONOCHROME1", "PixelPaddingValue": -2000}
    assert not grey(dicoms.dicom(padded, **white))[:5].any()


def test_a_window_without_a_width_is_none() -> None:
    assert (grey(dicoms.dicom(RAMP, WindowCenter=40, WindowWidth=0)) == spread(RAMP)).all()


def test_rescale_and_window_in_the_groups_of_an_enhanced_image() -> None:
    rescale, window, group = Dataset(), Dataset(), Dataset()
    rescale.RescaleSlope, rescale.RescaleIntercept, rescale.RescaleType = 1, -1000, "HU"
    window.WindowCenter, window.WindowWidth = 40, 400
    group.PixelValueTransformationSequence = Sequence([rescale])
    group.FrameVOILUTSequence = Sequence([window])
    plain = {"RescaleSlope": 1, "RescaleIntercept": -1000, "WindowCenter": 40, "WindowWidth": 400}
    groups = {"SharedFunctionalGroupsSequence": Sequence([group])}
    assert (decode(dicoms.dicom(RAMP, **groups)) == decode(dicoms.dicom(RAMP, **plain))).all()


def test_colour_by_pixel_by_plane_and_as_luma() -> None:
    from PIL import Image

    planes = np.ascontiguousarray(COLOUR.transpose(2, 0, 1))
    by_plane = dicoms.dicom(planes.reshape(40, 48, 3), PlanarConfiguration=1)
    luma = np.asarray(Image.fromarray(COLOUR).convert("YCbCr"))
    assert (decode(dicoms.dicom(COLOUR)) == COLOUR).all()
    assert (decode(by_plane) == COLOUR).all()
    found = decode(dicoms.dicom(luma, PhotometricInterpretation="YBR_FULL"))
    assert np.abs(found.astype(int) - COLOUR).max() <= 3
    pairs = np.stack([luma[:, ::2, 0], luma[:, 1::2, 0], luma[:, ::2, 1], luma[:, ::2, 2]], -1)
    half = dicoms.dicom(luma, PhotometricInterpretation="YBR_FULL_422")
    packed = half.replace(luma.tobytes(), pairs.tobytes())
    found = decode(packed)  # the element keeps its length and is cut
    assert np.abs(found.astype(int) - COLOUR)[:, ::2].max() <= 3


def test_a_palette() -> None:
    colours = np.random.default_rng(0).integers(0, 65536, (3, 256)).astype(np.uint16)
    elements = {"PhotometricInterpretation": "PALETTE COLOR"}
    for colour, entries in zip(("Red", "Green", "Blue"), colours, strict=True):
        elements[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"{colour}PaletteColorLookupTableData"] = entries.tobytes()
    for syntax in (dicoms.EXPLICIT, dicoms.IMPLICIT):
        found = decode(dicoms.dicom(GREY, syntax, **elements))
        assert (found == (colours >> 8).T.astype(np.uint8)[GREY]).all()


def test_rle() -> None:
    eight = dicoms.dicom(dicoms.rle([GREY]), dicoms.RLE, **dicoms.frame(GREY.shape))
    assert (grey(eight) == spread(GREY)).all()
    high, low = (RAMP >> 8).astype(np.uint8), (RAMP & 255).astype(np.uint8)
    deep = dicoms.dicom(dicoms.rle([high, low]), dicoms.RLE, **dicoms.deep(RAMP.shape))
    assert (grey(deep) == spread(RAMP)).all()
    planes = dicoms.rle([COLOUR[..., k] for k in range(3)])
    assert (decode(dicoms.dicom(planes, dicoms.RLE, **dicoms.frame(COLOUR.shape))) == COLOUR).all()


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (dicoms.LOSSLESS, lambda a: imagecodecs.jpeg8_encode(a, lossless=True, bitspersample=12)),
        (dicoms.JPEG_LS, imagecodecs.jpegls_encode),
        (dicoms.JPEG_2000, lambda a: imagecodecs.jpeg2k_encode(a, codecformat="j2k", level=0)),
    ],
)
def test_lossless_compression_of_12_bits_signed_and_not(syntax, encode) -> None:
    content = dicoms.dicom(bytes(encode(RAMP)), syntax, **dicoms.deep(RAMP.shape))
    assert (grey(content) == spread(RAMP)).all()
    values = RAMP.astype(np.int32) - 1900
    coded = bytes(encode((values & 0xFFF).astype(np.uint16)))
    elements = dicoms.deep(RAMP.shape, PixelRepresentation=1)
    assert (grey(dicoms.dicom(coded, syntax, **elements)) == spread(values)).all()


def test_jpeg_2000_of_signed_values() -> None:
    values = (RAMP.astype(np.int32) - 1900).astype(np.int16)
    coded = bytes(imagecodecs.jpeg2k_encode(values, codecformat="j2k", level=0))
    elements = dicoms.deep(RAMP.shape, 16, PixelRepresentation=1)
    assert (grey(dicoms.dicom(coded, dicoms.JPEG_2000, **elements)) == spread(values)).all()


def test_lossy_jpeg_of_8_and_12_bits() -> None:
    eight = bytes(imagecodecs.jpeg8_encode(GREY, level=98))
    found = grey(dicoms.dicom(eight, dicoms.BASELINE, **dicoms.frame(GREY.shape)))
    assert np.abs(found.astype(int) - spread(GREY)).max() <= 4
    twelve = bytes(imagecodecs.jpeg8_encode(RAMP, level=98, bitspersample=12))
    found = grey(dicoms.dicom(twelve, dicoms.EXTENDED, **dicoms.deep(RAMP.shape)))
    assert np.abs(found.astype(int) - spread(RAMP)).max() <= 2


def _smooth() -> np.ndarray:
    v, u = np.mgrid[:40, :48] * 5
    return np.stack([u, v, 255 - u], -1).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "YBR_FULL", "RGB"])
def test_the_colours_of_jpeg_are_what_frame_or_header_say(photometric: str) -> None:
    colour = _smooth()
    jfif = trees.encoded(colour)
    elements = dicoms.frame(colour.shape, PhotometricInterpretation=photometric)
    found = decode(dicoms.dicom(jfif, dicoms.BASELINE, **elements))
    assert np.abs(found.astype(int) - colour).max() < 40
    assert np.abs(found.astype(int) - colour).mean() < 4


def test_a_jpeg_of_untransformed_channels() -> None:
    colour = _smooth()
    bare = bytes(
        imagecodecs.jpeg8_encode(colour, level=98, colorspace="UNKNOWN", outcolorspace="UNKNOWN")
    )
    found = decode(dicoms.dicom(bare, dicoms.BASELINE, **dicoms.frame(colour.shape)))
    assert np.abs(found.astype(int) - colour).max() < 12


def test_jpeg_2000_undoes_its_own_transform() -> None:
    for transformed in (True, False):
        coded = bytes(
            imagecodecs.jpeg2k_encode(COLOUR, codecformat="j2k", level=0, mct=transformed)
        )
        photometric = "YBR_RCT" if transformed else "RGB"
        elements = dicoms.frame(COLOUR.shape, PhotometricInterpretation=photometric)
        assert (decode(dicoms.dicom(coded, dicoms.JPEG_2000, **elements)) == COLOUR).all()


BAD = {
    "holds 3 frames": {"NumberOfFrames": 3},
    r"PhotometricInterpretation \(0028,0004\) is missing": {"drop": ("PhotometricInterpretation",)},
    r"Rows \(0028,0010\) is missing": {"drop": ("Rows",)},
    r"BitsAllocated \(0028,0100\) is missing": {"drop": ("BitsAllocated",)},
    r"PixelData \(7FE0,0010\) is missing": {"drop": ("PixelData",)},
    "is none of MONOCHROME1": {"PhotometricInterpretation": "CMYK"},
    "3 samples a pixel": {"SamplesPerPixel": 3},
    "pixels of 32 bits": {"BitsAllocated": 32},
    "as a segmentation has": {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
    "disagree": {"HighBit": 3},
    "declares 48x0 pixels": {"Rows": 0},
    "is truncated: 1,920 of the 2,928 bytes": {"Rows": 61},
    "more than 80,000,000 pixels": {"Rows": 60000, "Columns": 60000},
    "VOILUTFunction .* is none of LINEAR": {
        "WindowCenter": 1,
        "WindowWidth": 9,
        "VOILUTFunction": "ODD",
    },
}


@pytest.mark.parametrize("words", BAD)
def test_what_is_not_drawn_says_why(words: str) -> None:
    with pytest.raises(FormatError, match=words):
        decode(dicoms.dicom(GREY, **BAD[words]))


def test_an_unknown_compression_says_what_is_read() -> None:
    content = dicoms.dicom(b"frame", "1.2.840.10008.1.2.4.201", **dicoms.frame(GREY.shape))
    with pytest.raises(FormatError, match="compressed in a way that is not read: known are unc"):
        decode(content)


def test_missing_elements_that_have_a_usual_value() -> None:
    elements = ("SamplesPerPixel", "BitsStored", "HighBit", "PixelRepresentation")
    assert (grey(dicoms.dicom(GREY, drop=elements)) == spread(GREY)).all()


@pytest.mark.parametrize("cut", ["jpeg", "jpeg_2000", "jpeg_ls", "rle"])
def test_a_compressed_frame_that_is_cut_or_of_another_size(cut: str) -> None:
    syntax, coded = {
        "jpeg": (dicoms.BASELINE, bytes(imagecodecs.jpeg8_encode(GREY))),
        "jpeg_2000": (dicoms.JPEG_2000, bytes(imagecodecs.jpeg2k_encode(GREY, codecformat="j2k"))),
        "jpeg_ls": (dicoms.JPEG_LS, bytes(imagecodecs.jpegls_encode(GREY))),
        "rle": (dicoms.RLE, dicoms.rle([GREY])),
    }[cut]
    with pytest.raises(FormatError):
        decode(dicoms.dicom(coded[: len(coded) // 3], syntax, **dicoms.frame(GREY.shape)))
    whole = dicoms.dicom(coded, syntax, **dicoms.frame(GREY.shape))
    with pytest.raises(FormatError, match="truncated|damaged"):
        decode(whole[: len(whole) - len(coded) // 2])
    with pytest.raises(FormatError, match="declares|truncated"):
        decode(dicoms.dicom(coded, syntax, **dicoms.frame((80, 96))))


def test_what_pydicom_warns_of_and_logs_is_not_heard(caplog: pytest.LogCaptureFixture) -> None:
    uid = dicoms.SECRETS["StudyInstanceUID"]
    wrong = uid.replace(".", "_")
    content = dicoms.dicom(GREY).replace(uid.encode(), wrong.encode())
    caplog.set_level(0)
    with warnings.catch_warnings(record=True) as loud:
        warnings.simplefilter("always")
        assert dcmread(io.BytesIO(content)).StudyInstanceUID == wrong
    assert wrong in str(loud[0].message)
    assert wrong in caplog.text
    caplog.clear()
    with warnings.catch_warnings(record=True) as quiet:
        warnings.simplefilter("always")
        assert text(io.BytesIO(content), "StudyInstanceUID") == wrong
        assert (grey(content) == spread(GREY)).all()
    assert not quiet
    assert not caplog.text


def test_only_what_is_asked_for_is_parsed() -> None:
    tags = [tag_of("Rows"), tag_of("PixelData")]
    with reading():
        _, elements = parse(io.BytesIO(dicoms.dicom(GREY)), tags)
    assert [element.keyword for element in elements] == ["Rows", "PixelData"]
    assert not [word for word in dicoms.words() if word in str(elements)]


def test_pydicom_is_loaded_by_no_module_before_it_reads() -> None:
    root = Path(diascope.__file__).parent / "data"
    for file in root.rglob("*.py"):
        for node in ast.parse(file.read_text()).body:
            names = [alias.name for alias in getattr(node, "names", [])]
            names.append(getattr(node, "module", None) or "")
            assert not [n for n in names if n.split(".")[0] in ("pydicom", "imagecodecs")], file
