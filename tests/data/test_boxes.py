"""Boxes as regions, and further regions of a row, at the working size."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from tests.data import trees

from diascope.data import Preprocess, load_pixels, load_region, open_data, open_dataset, verify
from diascope.data.boxes import box_region
from diascope.data.dataset import ReadError
from diascope.data.phantom import generate, write_phantom
from diascope.errors import UserError


def table_of(root: Path, text: str, images: int = 3) -> Path:
    """A table beside images of 40x30 called 0.png, 1.png, ..."""
    for k in range(images):
        trees.write(root / f"{k}.png", trees.encoded(trees.pixels(k), "PNG"))
    return trees.write(root / "table.csv", text)


def quoted(boxes: list[list[float]]) -> str:
    return f'"{json.dumps(boxes)}"'


def test_a_box_holds_the_pixels_whose_centres_it_holds() -> None:
    region = box_region("[[1, 2, 3, 1]]", 5, 6)
    assert np.argwhere(region).tolist() == [[2, 1], [2, 2], [2, 3]]
    assert np.argwhere(box_region("[[1.5, 2.5, 2, 1]]", 5, 6)).tolist() == [[2, 1], [2, 2]]
    assert np.argwhere(box_region("[[1.51, 2.5, 2, 1]]", 5, 6)).tolist() == [[2, 2], [2, 3]]


def test_boxes_are_united_and_cut_off_at_the_edges() -> None:
    region = box_region("[[-2, -1, 4, 3], [1, 1, 2, 1], [4, 3, 99, 99]]", 5, 6)
    expected = np.zeros((5, 6), bool)
    expected[:2, :2] = expected[1, 1:3] = expected[3:, 4:] = True
    np.testing.assert_array_equal(region, expected)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1 2 3 4", "write \\[\\[x, y, w, h\\]"),
        ("[]", "write"),
        ("[1, 2, 3, 4]", "write"),
        ("[[1, 2, 3]]", "write"),
        ("[[1, 2, 0, 4]]", "write"),
        ("[[1, 2, 3, NaN]]", "write"),
        ('[[1, 2, 3, "4"]]', "write"),
        ("[[1, 2, 3, true]]", "write"),
        ("[[50, 2, 3, 4]]", "covers no pixel of 6x5"),
        ("[[1.6, 2, 0.2, 4]]", "covers no pixel"),
    ],
)
def test_what_is_no_box_is_a_read_error(text: str, words: str) -> None:
    with pytest.raises(ReadError, match=words) as error:
        box_region(text, 5, 6, "a.png")
    assert error.value.path == "a.png"


@pytest.mark.parametrize(("crop", "left"), [("centre-square", 5), ("none", 0)])
def test_boxes_take_the_geometry_of_their_image(tmp_path: Path, crop: str, left: int) -> None:
    rows = f"0.png,a,{quoted([[11, 6, 20, 10]])}\n1.png,a,\n2.png,b,{quoted([[0, 0, 5, 30]])}\n"
    dataset = open_data(table_of(tmp_path, "path,label,boxes\n" + rows))
    pixels = load_pixels(dataset, 15, Preprocess(crop=crop))
    assert pixels.masks is not None
    assert pixels.has_mask.tolist() == [True, False, True]
    scale = 15 / (30 if crop == "centre-square" else 40)
    expected = np.zeros((15, 15), bool)
    first, last = (int(np.ceil((x - left) * scale - 0.5)) for x in (11, 31))
    expected[3:8, first:last] = True  # columns of which half is inside
    np.testing.assert_array_equal(pixels.m([0])[0].numpy(), expected)
    assert not pixels.m([1]).any()
    assert pixels.m([2]).any() == (crop == "none")  # the crop leaves this box outside
    assert pixels.take([2, 0]).m([1]).sum() == expected.sum()


def test_a_mask_takes_the_place_of_boxes(tmp_path: Path) -> None:
    trees.write(tmp_path / "m.png", trees.encoded(trees.region(), "PNG"))
    text = f"path,label,mask,boxes\n0.png,a,m.png,{quoted([[0, 0, 4, 4]])}\n1.png,b,,\n"
    pixels = load_pixels(open_data(table_of(tmp_path, text)), 30)
    np.testing.assert_array_equal(pixels.m([0])[0], Preprocess().mask(trees.region(), 30))


def test_changed_boxes_are_not_served_from_the_cache(tmp_path: Path) -> None:
    text = "path,label,boxes\n0.png,a,{}\n1.png,b,\n"
    without = load_pixels(open_data(table_of(tmp_path, text.format(""))), 30)
    assert without.masks is None
    for box in ([[5, 0, 10, 10]], [[5, 0, 20, 10]]):
        pixels = load_pixels(open_data(table_of(tmp_path, text.format(quoted(box)))), 30)
        assert pixels.m([0]).sum() == box[0][2] * 10


def test_wrong_boxes_are_listed(tmp_path: Path) -> None:
    text = f"path,label,boxes\n0.png,a,left\n1.png,b,{quoted([[40, 0, 5, 5]])}\n"
    problems = verify(open_data(table_of(tmp_path, text)))
    assert [p.path for p in problems] == ["0.png", "1.png"]
    assert "[[x, y, w, h], ...]" in problems[0].reason
    assert "covers no pixel of 40x30" in problems[1].reason


def test_boxes_of_a_file_with_a_row_a_box(tmp_path: Path) -> None:
    trees.write(tmp_path / "b.csv", "image,x,y,w,h,note\n2,1,2,3,4,u\n0,5,6,7.5,8,v\n2,0,0,2,2,w\n")
    table = table_of(tmp_path, "image,label\n0,a\n1,b\n2,a\n")
    dataset = open_dataset("table", table, path="{image}.png", boxes="b.csv")
    found = [json.loads(box) if box else [] for box in dataset.table.boxes]
    assert found == [[[5, 6, 7.5, 8]], [], [[1, 2, 3, 4], [0, 0, 2, 2]]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("image,x,y,w\n0,1,2,3\n", "no column 'h'"),
        ("picture,x,y,w,h\n0,1,2,3,4\n", "shares no column"),
        ("image,label,x,y,w,h\n0,a,1,2,3,4\n", r"shares \['image', 'label'\]"),
        ("image,x,y,w,h\n0,1,2,3,four\n", "is no number"),
        ("image,x,y,w,h\n0,1,2,3,inf\n", "not finite"),
        ("image,x,y,w,h\n7,1,2,3,4\n", "none of its boxes"),
    ],
)
def test_a_wrong_file_of_boxes_is_one_line(tmp_path: Path, text: str, words: str) -> None:
    trees.write(tmp_path / "b.csv", text)
    table = table_of(tmp_path, "image,label\n0,a\n1,b\n2,a\n")
    with pytest.raises(UserError, match=words):
        open_dataset("table", table, path="{image}.png", boxes="b.csv")


def test_radiologists_boxes_of_the_nih(shared_data: Path) -> None:
    root = shared_data / "cxr_nih_pneumonia"
    dataset = open_dataset(
        "table",
        root / "index.csv",
        path="images_256.zip!{file}",
        group="patient_id",
        boxes="boxes_256.csv",
    )
    rows = np.flatnonzero((dataset.table.boxes != "").to_numpy())
    assert (len(dataset), len(rows)) == (1000, 44)
    assert sum(len(json.loads(dataset.table.boxes[row])) for row in rows) == 49
    some = dataset.take([*rows, 0, 1, 2])
    pixels = load_pixels(some, 128, Preprocess(channels=1))
    assert pixels.has_mask.tolist() == [True] * 44 + [False] * 3
    for row, text in enumerate(some.table.boxes[:44]):
        boxes = np.array(json.loads(text)) / 2  # 256 pixels become 128
        ys, xs = np.nonzero(pixels.m([row])[0].numpy())
        assert abs(xs.min() - boxes[:, 0].min()) <= 1
        assert abs(ys.min() - boxes[:, 1].min()) <= 1
        assert abs(xs.max() + 1 - (boxes[:, 0] + boxes[:, 2]).max()) <= 1
        assert abs(ys.max() + 1 - (boxes[:, 1] + boxes[:, 3]).max()) <= 1


@pytest.mark.parametrize("written", [False, True])
def test_the_phantom_gives_its_hairs_and_its_sticker(tmp_path: Path, written: bool) -> None:
    options = {"images": 40, "size": 32, "seed": 3, "hospital": "both", "agreement": 0.9}
    p = generate(**options)
    if written:
        dataset = open_dataset("table", write_phantom(tmp_path / "out", **options))
    else:
        dataset = open_dataset("phantom", **options)
    assert p.hairs.any((1, 2)).sum() > 10
    np.testing.assert_array_equal(load_region(dataset, "hair", 32), p.hairs)
    np.testing.assert_array_equal(load_region(dataset, "shortcut", 32), p.shortcut)
    part = dataset.take([33, 4])
    halves = [Preprocess().mask(p.shortcut[row], 16) for row in (33, 4)]
    np.testing.assert_array_equal(load_region(part, "shortcut", 16), halves)
    with pytest.raises(UserError, match="no column 'hairs': did you mean 'hair'"):
        load_region(dataset, "hairs", 32)


def test_a_row_without_the_region_has_nothing_inside(tmp_path: Path) -> None:
    trees.write(tmp_path / "m.png", trees.encoded(trees.region(), "PNG"))
    dataset = open_data(table_of(tmp_path, "path,label,lung\n0.png,a,\n1.png,b,m.png\n"))
    lungs = load_region(dataset, "lung", 15)
    assert not lungs[0].any()
    np.testing.assert_array_equal(lungs[1], Preprocess().mask(trees.region(), 15))
