"""The reduced folders of real chest X-rays, where they lie beside the repository."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diascope.data import Dataset, load_pixels, open_data, open_dataset, verify
from diascope.data.preprocess import Preprocess


def boxes_of(dataset: Dataset) -> dict[str, list[list[float]]]:
    columns = zip(dataset.table.path, dataset.table.boxes, strict=True)
    return {path: json.loads(text) for path, text in columns if text}


def divides_no_patient(dataset: Dataset) -> None:
    for seed in range(3):
        sides = [set(part.table.group) for part in dataset.split(seed=seed)]
        assert sum(map(len, sides)) == dataset.table.group.nunique()
        assert all(sides)


def test_chestxray14(shared_data: Path, tmp_path: Path) -> None:
    root = shared_data / "cxr_nih_pneumonia"
    dataset = open_data(f"chestxray14:{root}")
    assert dataset.counts == {"No Finding": 500, "Finding": 500}
    assert dataset.table.group.nunique() == 682
    both = dataset.table.groupby("group").label.nunique()
    assert (both == 2).sum() == 21
    divides_no_patient(dataset)
    boxes = boxes_of(dataset)
    assert (len(boxes), sum(map(len, boxes.values()))) == (44, 49)
    one = boxes_of(open_dataset("chestxray14", root, task="pneumonia"))
    assert (len(one), sum(map(len, one.values()))) == (43, 43)

    for name in ("index.csv", "images_256.zip", "BBox_List_2017.csv"):
        (tmp_path / name).symlink_to(root / name)
    official = boxes_of(open_dataset("chestxray14", tmp_path))  # 1024 pixels become 256
    assert official.keys() == boxes.keys()
    for path, scaled in official.items():
        np.testing.assert_allclose(sorted(scaled), sorted(boxes[path]), atol=0.051)


def test_cohen(shared_data: Path) -> None:
    root = shared_data / "cxr_cohen"
    dataset = open_data(f"covid_chestxray:{root}")
    everything = open_dataset(
        "covid_chestxray",
        root,
        against="rest",
        views="all",
        drop_duplicates=False,
        drop_radiography=False,
    )
    assert everything.counts == {"negative": 97, "COVID-19": 423}
    assert everything.notes == ("85 images left out: without a known finding",)
    assert (everything.table.boxes != "").all()
    flagged = everything.table.radiography_match != ""
    assert not set(everything.table.path[flagged]) & set(dataset.table.path)
    again = everything.table.exact_dup_of != ""
    assert not set(everything.table.path[again]) & set(dataset.table.path)
    assert any("Radiography Database" in note for note in dataset.notes)
    left_out = sum(int(note.split()[0].replace(",", "")) for note in dataset.notes)
    assert len(dataset) + left_out == 605
    divides_no_patient(dataset)
    pixels = load_pixels(dataset.take(slice(0, 8)), 64, Preprocess(channels=1))
    assert pixels.has_mask.all()
    assert 0.2 < float(pixels.m().float().mean()) < 0.95


def test_radiography(shared_data: Path) -> None:
    dataset = open_data(f"covid_radiography:{shared_data / 'cxr_radiography'}")
    assert dataset.counts == {"negative": 1000, "COVID-19": 1000}
    per_source = dataset.table.groupby("source").label.agg(["size", "nunique"])
    assert per_source["size"].to_dict() == {
        "covid_idx_gt1821_bimcv_inferred": 800,
        "covid_idx_le1821_mixed": 200,
        "normal_kermany_pediatric": 300,
        "normal_rsna_nih": 700,
    }
    assert (per_source["nunique"] == 1).all()  # the source tells the label


@pytest.mark.parametrize(
    "text",
    [
        "chestxray14:{}/cxr_nih_pneumonia",
        "covid_chestxray:{}/cxr_cohen",
        "covid_radiography:{}/cxr_radiography",
    ],
)
def test_some_images_of_each_can_be_used(shared_data: Path, text: str) -> None:
    dataset = open_data(text.format(shared_data))
    assert verify(dataset.take(slice(0, None, 20))) == []


def test_one_model_is_asked_the_same_of_every_covid_dataset(shared_data: Path) -> None:
    names = {"covid_chestxray": "cxr_cohen", "covid_radiography": "cxr_radiography"}
    classes = {open_dataset(name, shared_data / folder).classes for name, folder in names.items()}
    assert classes == {("negative", "COVID-19")}
