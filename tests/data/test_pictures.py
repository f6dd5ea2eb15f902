"""JPEG, PNG and TIFF of every kind, and grey of 16 bits."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.data import dicoms, trees

from diascope.data import ReadError, load_pixels, open_data, verify
from diascope.data.readers import FileReader, listing

COLOUR = trees.pixels(0)
GREY = COLOUR[..., 0]
TWELVE = (np.arange(30 * 40).reshape(30, 40) * 3).astype(np.uint16)  # 0 to 3597


def saved(path: Path, image: Image.Image | np.ndarray, **options: object) -> FileReader:
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(path, **options)
    return FileReader(path.parent)


def test_cmyk(tmp_path: Path) -> None:
    picture = Image.fromarray(COLOUR).convert("CMYK")
    found = saved(tmp_path / "c.jpg", picture, quality=98, subsampling=0).image("c.jpg")
    assert np.abs(found.astype(int) - COLOUR).max() < 24
    assert (saved(tmp_path / "c.tif", picture).image("c.tif") == COLOUR).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(tmp_path: Path, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    reader = saved(tmp_path / "o.jpg", COLOUR, exif=exif, quality=98, subsampling=0)
    turned = {
        1: COLOUR, 2: COLOUR[:, ::-1], 3: COLOUR[::-1, ::-1], 4: COLOUR[::-1],
        5: COLOUR.transpose(1, 0, 2), 6: np.rot90(COLOUR, -1),
        7: np.rot90(COLOUR, 2).transpose(1, 0, 2),
        8: np.rot90(COLOUR),
    }[orientation]  # fmt: skip
    found = reader.image("o.jpg")
    assert found.shape == turned.shape
    assert np.abs(found.astype(int) - turned).max() < 24


def test_broken_metadata_do_not_spoil_an_image(tmp_path: Path) -> None:
    content = trees.encoded(COLOUR)
    exif = b"Exif\0\0II*\0\xff\xff\0\0garbage"
    segment = b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif
    trees.write(tmp_path / "m.jpg", content[:2] + segment + content[2:])
    trees.write(tmp_path / "plain.jpg", content)
    reader = FileReader(tmp_path)
    assert (reader.image("m.jpg") == reader.image("plain.jpg")).all()


def test_alpha_palette_and_few_bits(tmp_path: Path) -> None:
    both = np.dstack([GREY, np.full_like(GREY, 3)])
    assert (saved(tmp_path / "la.png", both).image("la.png")[..., 0] == GREY).all()
    palette = Image.fromarray(COLOUR).quantize(16)
    shown = np.asarray(palette.convert("RGB"))
    found = saved(tmp_path / "p.png", palette, transparency=bytes([0, 9])).image("p.png")
    assert (found == shown).all()
    bits = Image.fromarray(GREY > 127)
    assert set(np.unique(saved(tmp_path / "b.png", bits).image("b.png"))) == {0, 255}


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_tiff_of_8_and_16_bits(tmp_path: Path, compression: str | None) -> None:
    reader = saved(tmp_path / "c.tif", COLOUR, compression=compression)
    assert (reader.image("c.tif") == COLOUR).all()
    deep = GREY.astype(np.uint16) * 257
    reader = saved(tmp_path / "d.tif", deep, compression=compression)
    assert (reader.image("d.tif")[..., 0] == GREY).all()


def test_tiff_whose_white_is_zero(tmp_path: Path) -> None:
    reader = saved(tmp_path / "deep.tif", GREY.astype(np.uint16) * 257, tiffinfo={262: 0})
    assert (reader.image("deep.tif")[..., 0] == 255 - GREY).all()
    content = bytearray((saved(tmp_path / "w.tif", GREY).root / "w.tif").read_bytes())
    white = content.index(struct.pack("<HHL", 262, 3, 1)) + 8
    content[white] = 0
    (tmp_path / "w.tif").write_bytes(content)
    assert (reader.image("w.tif")[..., 0] == 255 - GREY).all()


def test_more_than_one_picture_is_refused(tmp_path: Path) -> None:
    others = [Image.fromarray(trees.pixels(k)) for k in (1, 2)]
    for name, words in (("t.tif", "more than one page"), ("g.gif", "an animation")):
        reader = saved(tmp_path / name, COLOUR, save_all=True, append_images=others)
        with pytest.raises(ReadError, match=words):
            reader.image(name)


def test_floating_point_is_refused(tmp_path: Path) -> None:
    reader = saved(tmp_path / "f.tif", GREY.astype(np.float32))
    with pytest.raises(ReadError, match="floating-point"):
        reader.image("f.tif")


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_faint_16_bits_are_refused_until_told(tmp_path: Path, suffix: str) -> None:
    name = f"x.{suffix}"
    with pytest.raises(ReadError, match=r"3,597 of 65,535, which leaves 14 of 256 .* depth=12"):
        saved(tmp_path / name, TWELVE).image(name)
    twelve = FileReader(tmp_path, depth=12).image(name)[..., 0]
    assert (twelve == np.rint(TWELVE * (255 / 4095))).all()
    stretched = FileReader(tmp_path, depth="stretch").image(name)[..., 0]
    assert (stretched == np.rint(TWELVE * (255 / 3597))).all()
    with pytest.raises(ReadError, match=r"up to 3,597, over the 1,023 of depth=10"):
        FileReader(tmp_path, depth=10).image(name)


def test_16_bits_that_lose_no_level_pass(tmp_path: Path) -> None:
    black = saved(tmp_path / "black.png", np.zeros((30, 40), np.uint16))
    assert not black.image("black.png").any()
    few = saved(tmp_path / "few.png", (GREY > 99).astype(np.uint16) * 9000)
    assert set(np.unique(few.image("few.png"))) == {0, 35}


def test_16_bits_of_the_range_of_8_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="leaves 1 of 256 levels: give depth=8"):
        saved(tmp_path / "e.png", GREY.astype(np.uint16)).image("e.png")
    assert (FileReader(tmp_path, depth=8).image("e.png")[..., 0] == GREY).all()


def test_faint_colour_of_16_bits_is_refused(tmp_path: Path) -> None:
    import imagecodecs

    deep = COLOUR.astype(np.uint16)
    (tmp_path / "c.png").write_bytes(imagecodecs.png_encode(deep * 257))
    (tmp_path / "d.png").write_bytes(imagecodecs.png_encode(deep * 16))
    reader = FileReader(tmp_path)
    assert (reader.image("c.png") == COLOUR).all()
    with pytest.raises(ReadError, match="16 bits a channel and uses the lowest 1[0-9] of 256"):
        reader.image("d.png")


def test_masks_of_16_bits(tmp_path: Path) -> None:
    region = trees.region()
    for white in (1, 255, 65535):
        reader = saved(tmp_path / "m.png", region.astype(np.uint16) * white)
        assert (reader.mask("m.png") == region).all()


def test_the_depth_is_an_option_and_part_of_the_cache(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        saved(root / label / "x.png", TWELVE + 400 * (label == "b"))
    assert all("depth=12" in problem.reason for problem in verify(open_data(root)))
    twelve = load_pixels(open_data(f"folder:{root},depth=12"), 30)
    stretched = load_pixels(open_data(f"folder:{root},depth=stretch"), 30)
    assert (twelve.images[[0]] != twelve.images[[1]]).any()
    assert (stretched.images[[0]] == stretched.images[[1]]).all()


def test_the_content_tells_the_format(tmp_path: Path) -> None:
    trees.write(tmp_path / "a.jpg", trees.encoded(COLOUR, "PNG"))
    trees.write(tmp_path / "b.png", dicoms.dicom(COLOUR))
    reader = FileReader(tmp_path)
    assert (reader.image("a.jpg") == COLOUR).all()
    assert (reader.image("b.png") == COLOUR).all()
    assert (dicoms_mask(tmp_path) == trees.region()).all()


def dicoms_mask(folder: Path) -> np.ndarray:
    trees.write(folder / "m", dicoms.dicom(trees.region().astype(np.uint8)))
    return FileReader(folder).mask("m")


def test_dicom_files_are_listed_by_suffix_or_content(tmp_path: Path) -> None:
    content = dicoms.dicom(GREY)
    entries = {"a/1.2.840.77": content, "a/IM0001": content, "a/x.DCM": content}
    others = {"a/README": b"words", "DICOMDIR": content, "a/1.2.3": b"", "a/.hidden": content}
    for name, data in {**entries, **others}.items():
        trees.write(tmp_path / "set" / name, data)
    trees.archive(tmp_path / "z.zip", {**entries, **others})
    assert listing(tmp_path / "set", ".") == sorted(entries)
    assert listing(tmp_path, "z.zip") == [f"z.zip!{name}" for name in sorted(entries)]
