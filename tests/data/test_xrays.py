"""Chest X-rays in PNG and JPEG: ChestX-ray14, Cohen's collection, the Radiography Database."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tests.data import trees, xrays

from diascope.data import Dataset, open_data, open_dataset, verify
from diascope.data.spreadsheet import read_xlsx
from diascope.data.verify import read_row
from diascope.errors import UserError


def boxes_at(dataset: Dataset, name: str) -> list[list[float]]:
    text = dataset.table.boxes[dataset.table.path.str.contains(name, regex=False)].item()
    return json.loads(text) if text else []


def names(dataset: Dataset) -> list[str]:
    return [path.replace("!", "/").rpartition("/")[2] for path in dataset.table.path]


# ChestX-ray14


@pytest.mark.parametrize("layout", ["kaggle", "nih", "zip"])
@pytest.mark.parametrize("version", ["", "_v2020"])
def test_chestxray14_in_every_layout(tmp_path: Path, layout: str, version: str) -> None:
    dataset = open_data(f"chestxray14:{xrays.nih(tmp_path, layout, 64, version)}")
    assert names(dataset) == [row[0] for row in xrays.NIH_IMAGES]
    assert dataset.classes == ("No Finding", "Finding")
    assert dataset.labels.tolist() == [1, 1, 0, 0, 1, 1]
    patients = ["00000001"] * 2 + ["00000002", "00000003"] + ["00000013"] * 2
    assert list(dataset.table.group) == patients
    assert list(dataset.table.split) == ["train"] * 4 + ["test"] * 2
    assert list(dataset.table.findings) == [row[1] for row in xrays.NIH_IMAGES]
    assert list(dataset.table.age) == ["57", "58", "80", "74", "56", "56"]
    assert list(dataset.table.sex) == ["M", "M", "M", "F", "M", "M"]
    assert dataset.notes == ()
    assert verify(dataset) == []
    for row, path in enumerate(dataset.table.path):
        want = xrays.grey(row, 64, 64)[..., None]
        np.testing.assert_array_equal(dataset.reader.image(path), want)


def test_chestxray14_keeps_the_official_test_and_draws_val_by_patient(tmp_path: Path) -> None:
    dataset = open_dataset("chestxray14", xrays.nih(tmp_path, side=32))
    train, val, test = dataset.split(seed=1, fractions=(0.5, 0.5, 0.0))
    assert names(test) == ["00000013_004.png", "00000013_005.png"]
    assert sorted(names(train) + names(val)) == [row[0] for row in xrays.NIH_IMAGES[:4]]
    assert not set(train.table.group) & set(val.table.group)


def test_chestxray14_asks_about_one_finding(tmp_path: Path) -> None:
    root = xrays.nih(tmp_path, side=32)
    rest = open_dataset("chestxray14", root, task="pneumothorax")
    assert rest.classes == ("No Pneumothorax", "Pneumothorax")
    assert rest.labels.tolist() == [0, 1, 0, 0, 0, 1]
    healthy = open_dataset("chestxray14", root, task="Pneumothorax", against="no-finding")
    assert healthy.classes == ("No Finding", "Pneumothorax")
    assert healthy.labels.tolist() == [1, 0, 0, 1]
    assert healthy.notes == ("2 images left out: with other findings than Pneumothorax",)
    pleural = open_dataset("chestxray14", root, task="pleural thickening")
    assert pleural.labels.tolist() == [0] * 6


@pytest.mark.parametrize("side", [1024, 256, 128])
def test_chestxray14_boxes_follow_the_size_of_the_stored_image(tmp_path: Path, side: int) -> None:
    dataset = open_dataset("chestxray14", xrays.nih(tmp_path, side=side))
    k = 1024 / side
    want = [[v / k for v in box[2:]] for box in xrays.NIH_BOXES[:2]]
    np.testing.assert_allclose(boxes_at(dataset, "00000001_001"), want, atol=1e-4)
    mask = read_row(dataset, 1).mask
    assert mask is not None
    rows, columns = np.nonzero(mask)
    assert mask.shape == (side, side)
    assert (columns.min(), rows.min()) == (round(256 / k), round(100 / k))
    assert abs(columns.max() + 1 - 800.25 / k) <= 1
    assert rows.max() + 1 == round(576 / k)


def test_chestxray14_takes_the_boxes_of_the_finding_asked_about(tmp_path: Path) -> None:
    root = xrays.nih(tmp_path)
    one = open_dataset("chestxray14", root, task="pneumothorax")
    assert boxes_at(one, "00000001_001") == [[600.25, 100, 200, 300]]
    assert boxes_at(one, "00000013_004") == []
    every = open_dataset("chestxray14", root, task="pneumothorax", boxes="all")
    assert len(boxes_at(every, "00000001_001")) == 2
    infiltrate = open_dataset("chestxray14", root, task="infiltration")
    assert boxes_at(infiltrate, "00000013_004") == [[100, 100, 50, 50]]


def test_chestxray14_in_part(tmp_path: Path) -> None:
    root = xrays.nih(tmp_path, side=32)
    for file in (root / "images_002" / "images").iterdir():
        file.unlink()
    whole = open_dataset("chestxray14", root)
    assert [p.reason for p in verify(whole)] == ["there is no such file"] * 3
    part = open_dataset("chestxray14", root, partial=True, views=["pa"])
    assert names(part) == ["00000001_000.png", "00000001_001.png"]
    assert part.notes == (
        "3 images left out: no such file in the folder (partial)",
        "1 image left out: of views other than pa",
    )


@pytest.mark.parametrize(
    ("spoil", "options", "words"),
    [
        (lambda root: (root / "Data_Entry_2017.csv").unlink(), {}, "no Data_Entry_2017.csv"),
        (lambda root: trees.write(root / "Data_Entry_2017.csv", "a,b\n"), {}, "'Image Index'"),
        (lambda root: None, {"task": "pneumotorax"}, "did you mean 'pneumothorax'"),
        (lambda root: trees.write(root / "BBox_List_2017.csv", "a,b\n"), {}, "x, y, w, h"),
        (
            lambda root: trees.write(
                root / "BBox_List_2017.csv",
                "Image Index,Finding Label,Bbox [x,y,w,h]\n00000001_000.png,Mass,1,2,3,\n",
            ),
            {},
            "not four numbers",
        ),
    ],
)
def test_a_wrong_chestxray14_is_one_line(
    tmp_path: Path, spoil: Callable[[Path], object], options: dict[str, str], words: str
) -> None:
    root = xrays.nih(tmp_path, side=32)
    spoil(root)
    with pytest.raises(UserError, match=words) as error:
        open_dataset("chestxray14", root, **options)
    assert "\n" not in str(error.value)


# COVID-19 image data collection


def test_cohens_collection_as_cloned(tmp_path: Path) -> None:
    dataset = open_data(f"covid_chestxray:{xrays.cohen(tmp_path)}")
    assert names(dataset) == ["a-1.jpeg", "SARS-10.1148rg.jpeg", "p.PNG"]
    assert dataset.classes == ("negative", "COVID-19")
    assert dataset.labels.tolist() == [1, 0, 0]
    assert list(dataset.table.group) == ["2", "3", "7a"]
    sites = ["eurorad.org", "eurorad.org", "github.com/ml-workgroup"]
    assert list(dataset.table.source) == sites
    assert boxes_at(dataset, "a-1") == [[4, 6, 16, 30], [26, 6, 16, 30]]
    assert boxes_at(dataset, "SARS") == [[5, 10, 15, 20]]  # drawn at twice the stored size
    assert boxes_at(dataset, "p.PNG") == []  # nobody marked its lungs
    assert dataset.notes == (
        "1 image left out: not X-rays",
        "1 image left out: of other views (views=frontal)",
        "1 image left out: without a known finding",
        "1 image left out: of findings that are not asked about (against=other-findings)",
    )
    assert verify(dataset) == []


def test_cohens_collection_by_its_options(tmp_path: Path) -> None:
    root = xrays.cohen(tmp_path)
    healthy = open_dataset("covid_chestxray", root, against="no-finding", views="all")
    assert names(healthy) == ["a-1.jpeg", "a-2.jpg", "n.png"]
    assert healthy.labels.tolist() == [1, 1, 0]
    rest = open_data(f"covid_chestxray:{root},against=rest,views=[AP, AP Supine],source=location")
    assert names(rest) == ["SARS-10.1148rg.jpeg", "n.png", "p.PNG"]
    assert set(rest.table.source) == {"Brescia, Italy"}
    masks = open_dataset("covid_chestxray", root, regions="masks")
    assert list(masks.table["mask"]) == ["annotations/lungVAE-masks/a-1_mask.png", "", ""]
    assert set(masks.table.boxes) == {""}
    assert verify(masks) == []


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: (root / "metadata.csv").unlink(), "no metadata.csv or index.csv"),
        (lambda root: trees.write(root / "metadata.csv", "patientid\n"), "no column 'finding'"),
        (lambda root: (root / "images").rename(root / "pictures"), "no images"),
        (
            lambda root: trees.write(
                root / "annotations" / "imageannotation_ai_lung_bounding_boxes.json", "{}"
            ),
            "bounding_boxes.json: cannot be read",
        ),
    ],
)
def test_a_wrong_copy_of_cohens_is_one_line(
    tmp_path: Path, spoil: Callable[[Path], object], words: str
) -> None:
    root = xrays.cohen(tmp_path)
    spoil(root)
    with pytest.raises(UserError, match=words) as error:
        open_dataset("covid_chestxray", root)
    assert "\n" not in str(error.value)


# COVID-19 Radiography Database


@pytest.mark.parametrize("inner", ["", "COVID-19_Radiography_Dataset"])
def test_the_radiography_database_of_kaggle(tmp_path: Path, inner: str) -> None:
    xrays.radiography(tmp_path / inner)
    dataset = open_data(f"covid_radiography:{tmp_path}")
    assert names(dataset) == ["COVID-1.png", "COVID-2.png", "Normal-1.png", "Normal-2.png"]
    assert dataset.labels.tolist() == [1, 1, 0, 0]
    assert list(dataset.table.source) == ["bimcv", "bimcv", "rsna", "rsna"]
    assert dataset.notes == ("4 images left out: neither COVID nor normal",)
    assert verify(dataset) == []  # though masks have 256x256 pixels, images 299x299
    row = read_row(dataset, 2)
    assert row.image is not None
    assert row.mask is not None
    assert row.image.shape == (299, 299, 1)
    assert abs(row.mask.mean() - trees.region(256, 256).mean()) < 0.002


def test_the_radiography_database_by_finding(tmp_path: Path) -> None:
    root = xrays.radiography(tmp_path)
    four = open_dataset("covid_radiography", root, task="finding")
    assert four.counts == {"COVID": 2, "Lung_Opacity": 2, "Normal": 2, "Viral Pneumonia": 2}
    assert set(four.table.source[four.table.label == "Viral Pneumonia"]) == {"kermany"}
    rest = open_dataset("covid_radiography", root, against="rest")
    assert rest.counts == {"negative": 6, "COVID-19": 2}
    assert set(rest.table["mask"]) == {
        path.replace("/images/", "/masks/") for path in rest.table.path
    }


def test_the_first_radiography_database_has_no_masks(tmp_path: Path) -> None:
    (xrays.radiography(tmp_path, first=True) / "Normal").rename(tmp_path / "NORMAL")
    (tmp_path / "COVID").rename(tmp_path / "COVID-19")
    dataset = open_dataset("covid_radiography", tmp_path, task="finding")
    assert dataset.counts == {"COVID": 2, "Lung_Opacity": 0, "Normal": 2, "Viral Pneumonia": 2}
    assert set(dataset.table["mask"]) == set(dataset.table.source) == {""}
    assert verify(dataset) == []


def test_a_wrong_radiography_database_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected folders COVID"):
        open_dataset("covid_radiography", tmp_path)
    root = xrays.radiography(tmp_path)
    trees.write(root / "COVID.metadata.xlsx", xrays.workbook([["NAME"], ["COVID-1"]]))
    with pytest.raises(UserError, match="FILE NAME and URL"):
        open_dataset("covid_radiography", root)


@pytest.mark.parametrize("name", ["chestxray14", "covid_chestxray", "covid_radiography"])
def test_no_folder_is_one_line(tmp_path: Path, name: str) -> None:
    for text in (name, f"{name}:{tmp_path / 'absent'}"):
        with pytest.raises(UserError, match=f"write {name}:PATH"):
            open_data(text)


# Workbooks


def test_a_workbook_with_gaps(tmp_path: Path) -> None:
    rows = [["A", "B", "C"], ["x", "", "z"], ["", "y"]]
    table = read_xlsx(trees.write(tmp_path / "a.xlsx", xrays.workbook(rows)))
    assert list(table.columns) == ["A", "B", "C"]
    assert table.to_numpy().tolist() == [["x", "", "z"], ["", "y", ""]]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK", "cannot be read as a workbook"),
        (xrays.workbook([["A"]])[:-40], "cannot be read as a workbook"),
        (xrays.workbook([]), "is empty"),
    ],
)
def test_what_is_no_workbook_is_one_line(tmp_path: Path, content: bytes, words: str) -> None:
    with pytest.raises(UserError, match=words):
        read_xlsx(trees.write(tmp_path / "a.xlsx", content))


def test_a_workbook_that_declares_entities_is_refused(tmp_path: Path) -> None:
    sheet = b'<!DOCTYPE a [<!ENTITY b "c">]><worksheet/>'
    file = trees.archive(tmp_path / "a.xlsx", {"xl/worksheets/sheet1.xml": sheet})
    with pytest.raises(UserError, match="declares entities"):
        read_xlsx(file)
