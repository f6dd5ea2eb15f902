from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data import trees

from diascope.data import load_pixels, open_data, open_dataset, verify
from diascope.errors import UserError


@pytest.mark.parametrize(
    ("build", "masks", "source"),
    [
        (trees.reduced, True, ""),
        (trees.dataverse, True, "vidir_modern"),
        (lambda root: trees.dataverse(root, packed=False), True, "vidir_modern"),
        (trees.kaggle, False, ""),
        (lambda root: trees.kaggle(root, lower=True), False, ""),
        (lambda root: trees.kaggle(root, both=True), False, ""),
    ],
    ids=["reduced", "dataverse", "unpacked", "kaggle", "kaggle-lower", "kaggle-both"],
)
def test_reads_every_layout(tmp_path: Path, build, masks: bool, source: str) -> None:
    dataset = open_data(f"ham10000:{build(tmp_path)}")
    assert len(dataset) == len(trees.IDS)
    assert dataset.counts == {"akiec": 0, "bcc": 0, "bkl": 1, "df": 0, "mel": 1, "nv": 2, "vasc": 0}
    assert tuple(dataset.table.label) == trees.DX
    assert tuple(dataset.table.group) == trees.LESIONS
    assert set(dataset.table.source) == {source}
    assert verify(dataset) == []
    for row, (path, mask) in enumerate(zip(dataset.table.path, dataset.table["mask"], strict=True)):
        assert trees.IDS[row] in path
        image = dataset.reader.image(path)
        want = trees.pixels(row, image.shape[1], image.shape[0]).astype(int)
        assert np.abs(image.astype(int) - want).mean() < 6  # JPEG
        assert bool(mask) == masks
        if mask:
            assert trees.IDS[row] in mask
            assert (dataset.reader.mask(mask) == trees.region(*image.shape[1::-1])).all()


def test_missing_and_wrong_images_are_found(tmp_path: Path) -> None:
    root = trees.kaggle(tmp_path)
    (root / "HAM10000_images_part_1" / f"{trees.IDS[1]}.jpg").unlink()
    small = trees.encoded(trees.pixels(0, 300, 225))
    trees.write(root / "HAM10000_images_part_2" / f"{trees.IDS[2]}.jpg", small)
    text = trees.rows().replace(",nv,", ",nevus,", 1)
    trees.write(root / "HAM10000_metadata.csv", text)
    found = {p.path.rpartition("/")[2]: p.reason for p in verify(open_dataset("ham10000", root))}
    assert found == {
        f"{trees.IDS[0]}.jpg": "unknown label 'nevus': did you mean 'nv'?",
        f"{trees.IDS[1]}.jpg": "there is no such file",
        f"{trees.IDS[2]}.jpg": "is 300x225 pixels, expected 600x450",
    }
    anysize = open_dataset("ham10000", root, image_size="any")
    assert len(verify(anysize)) == 2


def test_a_subset_of_classes_keeps_its_order(tmp_path: Path) -> None:
    dataset = open_dataset("ham10000", trees.reduced(tmp_path), classes=["nv", "mel"])
    assert dataset.classes == ("nv", "mel")
    assert dataset.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda root: (root / "HAM10000_metadata.csv").unlink(), "not a download of HAM10000"),
        (lambda root: (root / "images_40x30.zip").unlink(), "no images of HAM10000"),
        (lambda root: trees.write(root / "images_40x30.zip", b"PK\3\4"), "download it again"),
        (lambda root: trees.write(root / "HAM10000_metadata.csv", "image_id,dx\n"), "'lesion_id'"),
        (
            lambda root: trees.write(root / "HAM10000_metadata.csv", trees.METADATA + "\n"),
            "has no images",
        ),
    ],
)
def test_a_wrong_folder_is_one_line(tmp_path: Path, spoil, words: str) -> None:
    root = trees.reduced(tmp_path)
    spoil(root)
    with pytest.raises(UserError, match=words) as error:
        open_dataset("ham10000", root)
    assert "\n" not in str(error.value)


def test_no_folder_is_one_line(tmp_path: Path) -> None:
    for text in ("ham10000", f"ham10000:{tmp_path / 'absent'}"):
        with pytest.raises(UserError, match="ham10000:PATH"):
            open_data(text)


def test_the_real_images(shared_data: Path) -> None:
    dataset = open_data(f"ham10000:{shared_data / 'ham10000'}")
    assert dataset.counts == {
        "akiec": 327,
        "bcc": 514,
        "bkl": 1099,
        "df": 115,
        "mel": 1113,
        "nv": 6705,
        "vasc": 142,
    }
    assert dataset.table.group.nunique() == 7470
    splits = dataset.split(seed=0)
    sides = [set(part.table.group) for part in splits]
    assert not (sides[0] & sides[1])
    assert not (sides[0] & sides[2])
    assert not (sides[1] & sides[2])
    p1 = dataset.restrict(["mel", "nv", "bkl"]).balanced(4)
    pixels = load_pixels(p1, 64)
    assert pixels.images.shape == (12, 64, 64, 3)
    assert pixels.has_mask.all()
    assert 0.05 < float(pixels.m().float().mean()) < 0.7
