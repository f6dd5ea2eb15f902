"""ISIC 2018 in each of its layouts, the prepared squares, and P1's balanced draw."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest
from tests.data import trees

from diascope.data import load_pixels, open_data, open_dataset, verify
from diascope.errors import UserError

IDS = ("ISIC_0034524", "ISIC_0034525", "ISIC_0034526")
HEADER = "image,MEL,NV,BCC,AKIEC,BKL,DF,VASC"
TRUTH = f"{HEADER}\n{IDS[0]},0.0,1.0,0.0,0.0,0.0,0.0,0.0\n{IDS[1]},1.0,0.0,0.0,0.0,0.0,0.0,0.0\n"
TRUTH += f"{IDS[2]},0.0,0.0,0.0,0.0,0.0,0.0,1.0\n"


@functools.cache
def images(width: int = 600, height: int = 450) -> dict[str, bytes]:
    return {f"{n}.jpg": trees.encoded(trees.pixels(k, width, height)) for k, n in enumerate(IDS)}


def challenge(root: Path, part: str = "Test", packed: bool = False) -> Path:
    """As the challenge's archives are, or as they unpack: each in a folder of its own name."""
    title = f"ISIC2018_Task3_{part}"
    inner = {f"{title}_Input/{name}": content for name, content in images().items()}
    inner[f"{title}_Input/ATTRIBUTION.txt"] = b"cite"
    table = {f"{title}_GroundTruth/{title}_GroundTruth.csv": TRUTH.encode()}
    if packed:
        trees.archive(root / f"{title}_Input.zip", inner)
        trees.archive(root / f"{title}_GroundTruth.zip", table)
    else:
        for name, content in {**inner, **table}.items():
            trees.write(root / name, content)
    if part == "Training":
        rows = ["HAM_1,serial imaging", "HAM_1,serial imaging", "HAM_2,histopathology"]
        lines = [f"{name},{row}" for name, row in zip(IDS, rows, strict=True)]
        text = "\n".join(["image,lesion_id,diagnosis_confirm_type", *reversed(lines)])
        trees.write(root / f"{title}_LesionGroupings.csv", text + "\n")
    return root


def dataverse(root: Path) -> Path:
    trees.archive(
        root / "ISIC2018_Task3_Test_Images.zip",
        {f"ISIC2018_Task3_Test_Images/{name}": content for name, content in images().items()},
    )
    header = "lesion_id image_id dx dx_type age sex localization dataset".replace(" ", "\t")
    rows = [
        f'"HAMTEST_{k // 2}"\t"{name}"\t"{dx}"\t"histo"\t60.0\t"male"\t"back"\t"rosendahl"'
        for k, (name, dx) in enumerate(zip(IDS, ("nv", "mel", "vasc"), strict=True))
    ]
    trees.write(root / "ISIC2018_Task3_Test_GroundTruth.tab", "\n".join([header, *rows]) + "\n")
    return root


def squares(root: Path) -> Path:
    entries = dict(list(images(40, 40).items())[:2])
    trees.archive(root / "images_40.zip", entries)
    trees.write(root / "index.csv", f"image_id,dx\n{IDS[1]},mel\n{IDS[0]},nv\n")
    trees.write(root / "ISIC2018_Task3_Test_GroundTruth.csv", TRUTH)
    return root


@pytest.mark.parametrize(
    "build",
    [challenge, lambda root: challenge(root, packed=True), dataverse],
    ids=["challenge", "packed", "dataverse"],
)
def test_isic2018_is_the_same_in_every_layout(tmp_path: Path, build) -> None:
    dataset = open_data(f"isic2018:{build(tmp_path)}")
    ham = open_data(f"ham10000:{trees.reduced(tmp_path / 'ham')}")
    assert (dataset.name, dataset.classes) == ("isic2018", ham.classes)
    assert list(dataset.table.label) == ["nv", "mel", "vasc"]
    assert set(dataset.table.split) == {"test"}
    assert set(dataset.table.preparation) == {""}
    assert all(name in path for name, path in zip(IDS, dataset.table.path, strict=True))
    assert verify(dataset) == []
    whole = dataset.table.source.iloc[0]
    assert list(dataset.table.group) == (["HAMTEST_0"] * 2 + ["HAMTEST_1"] if whole else [""] * 3)


def test_the_training_part_is_ham10000_by_lesion(tmp_path: Path) -> None:
    dataset = open_dataset("isic2018", challenge(tmp_path, "Training"), part="training")
    assert dataset.name == "ham10000"
    assert list(dataset.table.group) == ["HAM_1", "HAM_1", "HAM_2"]
    assert list(dataset.table.dx_type) == ["serial imaging", "serial imaging", "histopathology"]
    assert set(dataset.table.split) == {""}
    groupings = tmp_path / "ISIC2018_Task3_Training_LesionGroupings.csv"
    text = groupings.read_text()
    trees.write(groupings, text.replace(IDS[2], "ISIC_1"))
    with pytest.raises(UserError, match=f"has no lesion of '{IDS[2]}'"):
        open_dataset("isic2018", tmp_path, part="training")
    groupings.unlink()
    with pytest.raises(UserError, match=r"no ISIC2018_Task3_Training_LesionGroupings\.csv"):
        open_dataset("isic2018", tmp_path, part="training")


def test_the_validation_part_is_official_validation(tmp_path: Path) -> None:
    dataset = open_dataset("isic2018", challenge(tmp_path, "Validation"), part="validation")
    assert (dataset.name, set(dataset.table.split)) == ("isic2018", {"val"})


def test_prepared_squares_are_the_listed_images(tmp_path: Path) -> None:
    dataset = open_data(f"isic2018:{squares(tmp_path)}")
    assert list(dataset.table.path) == [
        f"images_40.zip!{IDS[1]}.jpg",
        f"images_40.zip!{IDS[0]}.jpg",
    ]
    assert list(dataset.table.label) == ["mel", "nv"]
    assert set(dataset.table.preparation) == {"prepared 40x40"}
    assert verify(dataset) == []
    assert len(verify(open_data(f"isic2018:{tmp_path},image_size=600x450"))) == 2


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda r: (r / "ISIC2018_Task3_Test_GroundTruth.csv").unlink(), "not a download of ISIC"),
        (lambda r: (r / "images_40.zip").unlink(), "expected ISIC2018_Task3_Test_Input"),
        (lambda r: trees.write(r / "index.csv", f"image_id,dx\n{IDS[0]},mel\n"), "is mel there"),
        (lambda r: trees.write(r / "index.csv", "image_id,dx\nISIC_1,mel\n"), "'ISIC_1' is mel"),
        (
            lambda r: trees.write(r / "ISIC2018_Task3_Test_GroundTruth.csv", "image,MEL\n"),
            "no column 'NV'",
        ),
    ],
)
def test_a_wrong_isic2018_is_one_line(tmp_path: Path, spoil, words: str) -> None:
    root = squares(tmp_path)
    spoil(root)
    with pytest.raises(UserError, match=words) as error:
        open_data(f"isic2018:{root}")
    assert "\n" not in str(error.value)


def test_a_row_of_two_diagnoses_or_none_has_no_label(tmp_path: Path) -> None:
    root = challenge(tmp_path)
    text = TRUTH.replace("0.0,1.0,0.0", "1.0,1.0,0.0").replace(",1.0\n", ",\n")
    title = "ISIC2018_Task3_Test_GroundTruth"
    trees.write(root / title / f"{title}.csv", text)
    dataset = open_data(f"isic2018:{root}")
    assert list(dataset.table.label) == ["", "mel", ""]
    assert [problem.reason for problem in verify(dataset)] == ["has no label"] * 2


def test_p1_draws_800_and_299_a_class_from_the_real_images(shared_data: Path) -> None:
    dataset = open_data(f"ham10000:{shared_data / 'ham10000'},draw=p1")
    assert dataset.classes == ("mel", "nv", "bkl")
    train, val, test = dataset.split(seed=0, fractions=(1.0, 0.0, 0.0))
    assert train.counts == {"mel": 800, "nv": 800, "bkl": 800}
    assert test.counts == {"mel": 299, "nv": 299, "bkl": 299}
    assert len(val) == 0
    assert not set(train.table.group) & set(test.table.group)
    other = open_data(f"ham10000:{shared_data / 'ham10000'},draw=p1,draw_seed=1")
    assert set(other.table.path) != set(dataset.table.path)
    same = open_dataset("ham10000", shared_data / "ham10000", ["mel", "nv", "bkl"])
    assert set(same.split(0, per_class=(800, 0, 299)).test.table.path) == set(test.table.path)
    with pytest.raises(UserError, match="'mel' has 491 images in whole groups"):
        open_data(f"ham10000:{shared_data / 'ham10000_224'},draw=p1")


def test_the_real_squares_are_prepared_alike(shared_data: Path) -> None:
    classes = ["mel", "nv", "bkl"]
    ham = open_data(f"ham10000:{shared_data / 'ham10000_224'}", classes)
    isic = open_data(f"isic2018:{shared_data / 'isic2018_test_224'}", classes)
    assert ham.counts == {"mel": 491, "nv": 1200, "bkl": 583}
    assert isic.counts == {"mel": 171, "nv": 500, "bkl": 217}
    assert ham.table.group.nunique() == 2274
    assert set(ham.table.preparation) == set(isic.table.preparation) == {"prepared 224x224"}
    assert set(isic.table.split) == {"test"}
    assert set(ham.table.split) == {""}
    assert (ham.table["mask"] != "").all()
    assert (isic.table["mask"] == "").all()
    one, two = load_pixels(ham.take(range(20)), 224), load_pixels(isic.take(range(20)), 224)
    assert one.images.shape == two.images.shape == (20, 224, 224, 3)
    assert one.has_mask.all()
    for pixels in (one, two):  # as they lie in the archive: nothing is cut or resized again
        stored = pixels.dataset.reader.image(pixels.dataset.table.path[0])
        assert (np.asarray(pixels.images[0]) == stored).all()


def test_a_folder_of_the_other_is_refused(shared_data: Path) -> None:
    with pytest.raises(UserError, match="not a download of HAM10000"):
        open_data(f"ham10000:{shared_data / 'isic2018_test_224'}")
    with pytest.raises(UserError, match="not a download of ISIC 2018"):
        open_data(f"isic2018:{shared_data / 'ham10000_224'}")
