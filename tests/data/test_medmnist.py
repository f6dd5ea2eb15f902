"""MedMNIST, in files of the official arrays; and reading `.npz` without pickle or surprise."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from diascope.data import Preprocess, load_pixels, open_data, open_dataset, verify
from diascope.data.named.medmnist import CLASSES
from diascope.data.npz import read_npz
from diascope.errors import UserError

COUNTS = {"train": 20, "val": 6, "test": 9}


def npz(
    root: Path,
    name: str,
    side: int = 28,
    colour: bool = False,
    labels: int = 1,
    top: int = 2,
    **extra,
) -> Path:
    """A file as the authors write it: uint8 images, uint8 labels of shape (N, 1) or (N, L)."""
    draw = np.random.default_rng(side)
    arrays = {}
    for split, count in COUNTS.items():
        shape = (count, side, side, 3) if colour else (count, side, side)
        arrays[f"{split}_images"] = draw.integers(0, 256, shape, np.uint8)
        marks = draw.integers(0, top, (count, labels), np.uint8)
        marks[0] = top - 1
        arrays[f"{split}_labels"] = marks
    file = root / f"{name}.npz"
    np.savez_compressed(file, **{**arrays, **extra})
    return file


@pytest.mark.parametrize(("side", "colour"), [(28, False), (28, True), (64, True)])
def test_official_splits_pixels_and_classes(tmp_path: Path, side: int, colour: bool) -> None:
    file = npz(tmp_path, "bloodmnist" if side == 28 else f"bloodmnist_{side}", side, colour, top=8)
    dataset = open_data(f"medmnist:{file}")
    assert (dataset.name, dataset.classes) == ("bloodmnist", CLASSES["bloodmnist"])
    assert dataset.table.split.value_counts().to_dict() == COUNTS
    assert verify(dataset) == []
    with np.load(file) as arrays:
        pixels = load_pixels(dataset, side, Preprocess(channels=3 if colour else 1))
        whole = np.concatenate([arrays[f"{split}_images"] for split in COUNTS])
        assert (np.asarray(pixels.images).reshape(whole.shape) == whole).all()
        marks = np.concatenate([arrays[f"{split}_labels"] for split in COUNTS])
    assert dataset.labels.tolist() == marks[:, 0].tolist()
    train, val, test = dataset.split(seed=0)
    assert (len(train), len(val), len(test)) == (20, 6, 9)


def test_an_image_keeps_its_id_at_another_size(tmp_path: Path) -> None:
    npz(tmp_path, "pathmnist", 28, True, top=9)
    npz(tmp_path, "pathmnist_64", 64, True, top=9)
    small = open_dataset("medmnist", tmp_path, dataset="pathmnist", size=28)
    large = open_dataset("medmnist", tmp_path, dataset="pathmnist", size=64)
    assert (small.ids == large.ids).all()
    assert small.reader.image("val/00003").shape == (28, 28, 3)
    assert large.reader.image("val/00003").shape == (64, 64, 3)
    assert (open_data(f"medmnist:{tmp_path},dataset=pathmnist,size=64").ids == small.ids).all()
    for options, words in (
        ({}, "several files fit"),
        ({"dataset": "pathmnist"}, "several files fit"),
        ({"dataset": "octmnist"}, "no file fits"),
        ({"size": 128}, "no file fits"),
    ):
        with pytest.raises(UserError, match=f"{words}: choose by .* pathmnist.npz, pathmnist_64"):
            open_dataset("medmnist", tmp_path, **options)


def test_several_labels_need_a_task(tmp_path: Path) -> None:
    file = npz(tmp_path, "chestmnist", labels=14)
    with pytest.raises(UserError, match="14 labels an image: give task: known: any, atelectasis"):
        open_data(f"medmnist:{file}")
    with pytest.raises(UserError, match="did you mean 'pneumothorax'"):
        open_data(f"medmnist:{file},task=pneumotorax")
    with np.load(file) as arrays:
        marks = np.concatenate([arrays[f"{split}_labels"] for split in COUNTS])
    one = open_data(f"medmnist:{file},task=pneumothorax")
    assert one.classes == ("no pneumothorax", "pneumothorax")
    assert one.labels.tolist() == marks[:, 7].tolist()
    whole = open_data(f"medmnist:{file},task=any")
    assert whole.labels.tolist() == marks.any(axis=1).astype(int).tolist()
    single = npz(tmp_path, "pneumoniamnist")
    with pytest.raises(UserError, match="leave it out"):
        open_data(f"medmnist:{single},task=any")


def test_a_file_of_another_name_has_numbers_as_classes(tmp_path: Path) -> None:
    assert open_data(f"medmnist:{npz(tmp_path, 'ours', top=3)}").classes == ("0", "1", "2")
    several = open_data(f"medmnist:{npz(tmp_path, 'tags', labels=5)},task=3")
    assert several.classes == ("no 3", "3")


@pytest.mark.parametrize(
    ("name", "extra", "words"),
    [
        ("organmnist3d", {"train_images": np.zeros((20, 28, 28, 28), np.uint8)}, "holds volumes"),
        ("ours", {"val_images": np.zeros((6, 28, 28), np.float32)}, "expected 8 bits"),
        ("ours", {"val_images": np.zeros((5, 28, 28), np.uint8)}, "5 val images, yet 6 labels"),
        ("ours", {"val_images": np.zeros((6, 2000, 2), np.uint8)}, "at most 1024"),
        ("ours", {"test_labels": np.zeros((9, 1))}, "expected class numbers"),
        ("ours", {"test_labels": np.full((9, 1), -1)}, "expected class numbers"),
        ("ours", {"test_labels": np.zeros((9, 2), np.uint8)}, "different numbers of labels"),
        ("pneumoniamnist", {"test_labels": np.full((9, 1), 2, np.uint8)}, "label is 2"),
        ("ours", {"test_labels": np.array([["x"]], object)}, "holds objects"),
    ],
)
def test_what_is_no_such_file_is_one_line(tmp_path: Path, name: str, extra, words: str) -> None:
    file = npz(tmp_path, name, **extra)
    with pytest.raises(UserError, match=words) as error:
        open_data(f"medmnist:{file}")
    assert "\n" not in str(error.value)


def test_a_missing_or_damaged_file_is_one_line(tmp_path: Path) -> None:
    for text in ("medmnist", f"medmnist:{tmp_path / 'absent.npz'}"):
        with pytest.raises(UserError, match="write medmnist:PATH"):
            open_data(text)
    file = npz(tmp_path, "pathmnist")
    content = file.read_bytes()
    middle = len(content) // 3
    flipped = content[:middle] + bytes(255 - b for b in content[middle : middle + 9])
    for spoilt in (content[:-50], content[:200], b"", flipped + content[middle + 9 :]):
        file.write_bytes(spoilt)
        with pytest.raises(UserError, match=r"pathmnist\.npz: cannot be read") as error:
            open_data(f"medmnist:{file}")
        assert "\n" not in str(error.value)
    np.savez(file, train_images=np.zeros((1, 28, 28), np.uint8))
    with pytest.raises(UserError, match="has no array 'val_images'"):
        open_data(f"medmnist:{file}")


def packed(file: Path, shape: tuple[int, ...], body: bytes, fortran: bool = False) -> Path:
    """A `.npz` file whose one array `x` says its shape, whatever its body."""
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", stream.getvalue() + body)
    return file


@pytest.mark.parametrize("shape", [(1 << 40,), (3,), (-2, -2), (1 << 32, 1 << 32, 4)])
def test_an_array_that_is_not_as_long_as_it_says_is_refused(tmp_path: Path, shape) -> None:
    file = packed(tmp_path / "x.npz", shape, b"abcd")
    with pytest.raises(UserError, match="cannot be read"):
        read_npz(file, ["x"], "ours")


def test_an_array_in_fortran_order_is_refused(tmp_path: Path) -> None:
    file = packed(tmp_path / "x.npz", (2, 2), b"abcd", fortran=True)
    with pytest.raises(UserError, match="Fortran"):
        read_npz(file, ["x"], "ours")


def test_a_large_array_is_unpacked_once_and_mapped(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("DIASCOPE_CACHE", str(tmp_path / "cache"))
    file = packed(tmp_path / "x.npz", (2, 50), bytes(range(100)))
    (small,) = read_npz(file, ["x"], "ours")
    (large,) = read_npz(file, ["x"], "ours", in_memory=99)
    assert isinstance(large.values, np.memmap)
    assert (large.values == small.values).all()
    assert large.stamp == small.stamp
    (unpacked,) = (tmp_path / "cache" / "unpacked").iterdir()
    before = unpacked.stat().st_mtime_ns
    read_npz(file, ["x"], "ours", in_memory=99)
    assert unpacked.stat().st_mtime_ns == before
    packed(file, (2, 50), bytes(range(1, 101)))
    (other,) = read_npz(file, ["x"], "ours", in_memory=99)
    assert other.values[0, 0] == 1
    assert other.stamp != large.stamp
