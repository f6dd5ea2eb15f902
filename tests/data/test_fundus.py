"""EyePACS and APTOS 2019, in tiny trees of Kaggle's layouts, and the real reduced images."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.data import trees

from diascope.data import load_pixels, open_data, open_dataset, verify
from diascope.data.fundus import GRADES
from diascope.errors import UserError

EYES = ("10_left", "10_right", "13_left", "13_right", "15_left")
LEVELS = ("0", "1", "2", "3", "4")
TESTED = ("1_left", "1_right", "20_left")


def eyes(names: tuple[str, ...], folder: str, kind: str = "JPEG") -> dict[str, bytes]:
    suffix = "jpeg" if kind == "JPEG" else "png"
    pictures = [trees.encoded(trees.pixels(k, 60, 40), kind) for k in range(len(names))]
    return {f"{folder}/{n}.{suffix}": c for n, c in zip(names, pictures, strict=True)}


def eyepacs(root: Path, packed: bool = False) -> Path:
    train = "\n".join(["image,level", *map(",".join, zip(EYES, LEVELS, strict=True))]) + "\n"
    usage = ("Private", "Private", "Public")
    rows = map(",".join, zip(TESTED, ("2", "0", "4"), usage, strict=True))
    test = "\n".join(["image,level,Usage", *rows]) + "\n"
    if packed:
        trees.archive(root / "trainLabels.csv.zip", {"trainLabels.csv": train.encode()})
        trees.archive(root / "train.zip", eyes(EYES, "train"))
        trees.archive(root / "test.zip", eyes(TESTED, "test"))
    else:
        trees.write(root / "trainLabels.csv", train)
        for name, content in {**eyes(EYES, "train"), **eyes(TESTED, "test")}.items():
            trees.write(root / name, content)
    trees.write(root / "sampleSubmission.csv", "image,level\n1_left,0\n")
    trees.write(root / "retinopathy_solution.csv", test)
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_eyepacs_groups_both_eyes_of_a_patient(tmp_path: Path, packed: bool) -> None:
    dataset = open_data(f"eyepacs:{eyepacs(tmp_path, packed)}")
    assert list(dataset.table.group) == ["10", "10", "13", "13", "15"]
    assert list(dataset.table.eye) == ["left", "right", "left", "right", "left"]
    assert list(dataset.table.grade) == list(LEVELS)
    assert set(dataset.table.split) == {""}
    assert verify(dataset) == []
    for part in dataset.split(seed=0, fractions=(0.5, 0.2, 0.3)):
        assert all((dataset.table.group == g).sum() == (part.table.group == g).sum() for g in
                   set(part.table.group))  # fmt: skip


@pytest.mark.parametrize(
    ("task", "classes", "labels"),
    [
        ("referable", ("not referable", "referable"), [0, 0, 1, 1, 1]),
        ("p2", ("not referable", "referable"), [0, 0, 1, 1, 1]),
        ("any", ("no retinopathy", "retinopathy"), [0, 1, 1, 1, 1]),
        ("grades", GRADES, [0, 1, 2, 3, 4]),
    ],
)
def test_the_tasks_of_grades(tmp_path: Path, task: str, classes, labels: list[int]) -> None:
    dataset = open_dataset("eyepacs", eyepacs(tmp_path), task=task)
    assert (dataset.classes, dataset.labels.tolist()) == (classes, labels)
    other = open_dataset("aptos2019", aptos(tmp_path / "aptos"), task=task)
    assert (other.classes, other.labels.tolist()) == (classes, labels)


def test_the_test_images_are_an_official_split(tmp_path: Path) -> None:
    root = eyepacs(tmp_path)
    test = open_dataset("eyepacs", root, part="test")
    assert list(test.table.path) == [f"test/{name}.jpeg" for name in TESTED]
    assert set(test.table.split) == {"test"}
    assert list(test.table.usage) == ["Private", "Private", "Public"]
    whole = open_dataset("eyepacs", root, part="all")
    train, val, held = whole.split(seed=0, fractions=(1.0, 0.0, 0.0))
    assert (len(train), len(val), len(held)) == (5, 0, 3)


def aptos(root: Path, packed: bool = False) -> Path:
    names = ("000c1434d8d7", "001639a390f0", "0024cdab0c1e", "002c21358ce6", "005b95c28852")
    rows = map(",".join, zip(names, LEVELS, strict=True))
    trees.write(root / "train.csv", "\n".join(["id_code,diagnosis", *rows]) + "\n")
    trees.write(root / "test.csv", "id_code\n0005cfc8afb6\n")
    pictures = eyes(names, "train_images", "PNG")
    if packed:
        flat = {name.partition("/")[2]: content for name, content in pictures.items()}
        trees.archive(root / "train_images.zip", flat)
    else:
        for name, content in pictures.items():
            trees.write(root / name, content)
    trees.write(root / "test_images" / "0005cfc8afb6.png", b"")
    return root


@pytest.mark.parametrize("packed", [False, True])
def test_aptos_reads_graded_images_alone(tmp_path: Path, packed: bool) -> None:
    dataset = open_data(f"aptos2019:{aptos(tmp_path, packed)},task=grades")
    assert dataset.counts == dict.fromkeys(GRADES, 1)
    assert set(dataset.table.group) == {""}
    assert verify(dataset) == []


@pytest.mark.parametrize(
    ("name", "spoil", "words"),
    [
        ("eyepacs", lambda r: (r / "trainLabels.csv").unlink(), "no trainLabels.csv"),
        ("eyepacs", lambda r: (r / "train").rename(r / "tr"), "no images in train or train.zip$"),
        (
            "eyepacs",
            lambda r: [(r / "train").rename(r / "x"), trees.write(r / "train.zip.001", b"")],
            "cat train.zip.0",
        ),
        (
            "eyepacs",
            lambda r: trees.write(r / "trainLabels.csv", "image,level\n10_left,0\nten_left,0\n"),
            "'ten_left' is not called PATIENT_left",
        ),
        ("eyepacs", lambda r: trees.write(r / "trainLabels.csv", "name,level\n"), "'image'"),
        ("aptos2019", lambda r: (r / "train.csv").unlink(), "not a download of APTOS"),
        ("aptos2019", lambda r: (r / "train_images").rename(r / "x"), "no images in train_images"),
        ("aptos2019", lambda r: trees.write(r / "train.csv", "id_code\n"), "'diagnosis'"),
    ],
)
def test_a_wrong_folder_is_one_line(tmp_path: Path, name: str, spoil, words: str) -> None:
    root = (eyepacs if name == "eyepacs" else aptos)(tmp_path)
    spoil(root)
    with pytest.raises(UserError, match=words) as error:
        open_data(f"{name}:{root}")
    assert "\n" not in str(error.value)


def test_missing_images_and_unknown_grades_are_found(tmp_path: Path) -> None:
    root = eyepacs(tmp_path)
    (root / "train" / "13_left.jpeg").unlink()
    text = (root / "trainLabels.csv").read_text().replace("10_left,0", "10_left,5")
    trees.write(root / "trainLabels.csv", text)
    found = {p.path: p.reason for p in verify(open_dataset("eyepacs", root))}
    assert found["train/13_left.jpeg"] == "there is no such file"
    assert found["train/10_left.jpeg"].startswith("unknown label '5'")
    assert len(found) == 2


def test_a_patient_that_its_name_denies_is_refused(tmp_path: Path) -> None:
    trees.archive(tmp_path / "images_60x40.zip", eyes(("10_left", "10_right"), "."))
    text = "file,patient_id,eye,level\n10_left.jpg,10,left,0\n10_right.jpg,11,right,0\n"
    trees.write(tmp_path / "index.csv", text)
    with pytest.raises(UserError, match="'10_right' has the patient_id '11'"):
        open_data(f"eyepacs:{tmp_path}")
    with pytest.raises(UserError, match="no test images"):
        trees.write(tmp_path / "index.csv", text.replace(",11,", ",10,"))
        open_dataset("eyepacs", tmp_path, part="test")


def test_the_real_eyes(shared_data: Path) -> None:
    root = shared_data / "eyepacs_dr"
    dataset = open_data(f"eyepacs:{root}")
    assert dataset.counts == {"not referable": 880, "referable": 217}
    assert dataset.table.group.nunique() == 549
    grades = open_data(f"eyepacs:{root},task=grades")
    assert list(grades.counts.values()) == [815, 65, 167, 30, 20]
    assert open_data(f"eyepacs:{root},task=any").counts["retinopathy"] == 282
    parts = dataset.split(seed=0)
    sides = [set(part.table.group) for part in parts]
    assert sum(map(len, sides)) == len(set.union(*sides)) == 549
    pixels = load_pixels(dataset.take(range(8)), 64)
    assert pixels.images.shape == (8, 64, 64, 3)
    assert dataset.reader.image(dataset.table.path[0]).shape == (400, 400, 3)
