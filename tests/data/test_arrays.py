"""MNIST and CIFAR-10, in tiny trees of exactly the official layouts, and the real ones."""

from __future__ import annotations

import gzip
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from tests.data import trees

from diascope.data import Dataset, Preprocess, load_pixels, open_data, verify
from diascope.data.arrays import ArrayReader
from diascope.data.named import cifar10
from diascope.errors import UserError
from diascope.training import Progress, read_config
from diascope.training.run import open_parts

COUNTS = {"train": 40, "test": 12}


def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(len(split))
    count = COUNTS[split]
    return draw.integers(0, 256, (count, 28, 28), np.uint8), np.arange(count, dtype=np.uint8) % 10


def npz(root: Path) -> Path:
    (x_train, y_train), (x_test, y_test) = digits("train"), digits("test")
    arrays = {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}
    np.savez_compressed(root / "mnist.npz", **arrays)
    return root


def idx(root: Path, packed: bool = False, dot: bool = False, nested: bool = False) -> Path:
    folder = root / "MNIST" / "raw" if nested else root
    for split, stem in {"train": "train", "test": "t10k"}.items():
        for kind, array in zip(("images-idx3", "labels-idx1"), digits(split), strict=True):
            header = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
            content = header + array.tobytes()
            name = f"{stem}-{kind}-ubyte"
            name = name.replace("-idx", ".idx") if dot else name
            if packed:
                trees.write(folder / f"{name}.gz", gzip.compress(content))
            else:
                trees.write(folder / name, content)
    return root


@pytest.mark.parametrize(
    "build",
    [
        npz,
        idx,
        lambda root: idx(root, packed=True),
        lambda root: idx(root, dot=True),
        lambda root: idx(root, nested=True),
    ],
    ids=["npz", "idx", "gz", "dots", "raw"],
)
def test_mnist_is_the_same_in_every_layout(tmp_path: Path, build) -> None:
    dataset = open_data(f"mnist:{build(tmp_path)}")
    assert dataset.classes == tuple("0123456789")
    assert dataset.table.split.value_counts().to_dict() == COUNTS
    assert list(dataset.table.path[[0, 39, 40]]) == ["train/00000", "train/00039", "test/00000"]
    for split in COUNTS:
        images, labels = digits(split)
        part = dataset.take((dataset.table.split == split).to_numpy())
        assert part.labels.tolist() == labels.tolist()
        pixels = load_pixels(part, 28, Preprocess(channels=1))
        assert (np.asarray(pixels.images)[..., 0] == images).all()
    assert verify(dataset) == []


def spoil(file: Path, content: bytes) -> None:
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("build", "harm", "words"),
    [
        (idx, lambda r: (r / "t10k-labels-idx1-ubyte").unlink(), "t10k-labels-idx1-ubyte"),
        (idx, lambda r: spoil(r / "train-images-idx3-ubyte", b"\0\0\x08\x03"), "download it again"),
        (idx, lambda r: spoil(r / "train-images-idx3-ubyte", b"<html>"), "not an idx file"),
        (
            lambda r: idx(r, packed=True),
            lambda r: spoil(r / "t10k-images-idx3-ubyte.gz", gzip.compress(b"x" * 90)[:-9]),
            "download it again",
        ),
        (npz, lambda r: spoil(r / "mnist.npz", b"PK\3\4"), "download it again"),
        (npz, lambda r: np.savez(r / "mnist.npz", x_train=np.zeros(3)), "not MNIST"),
        (
            npz,
            lambda r: np.savez(
                r / "mnist.npz",
                **{k: np.zeros((2, 28, 28)) for k in ("x_train", "y_train", "x_test", "y_test")},
            ),
            "expected 8 bits",
        ),
        (
            npz,
            lambda r: np.savez(
                r / "mnist.npz",
                x_train=np.zeros((2, 28, 28), np.uint8),
                y_train=np.array([3, 10], np.uint8),
                x_test=np.zeros((2, 28, 28), np.uint8),
                y_test=np.zeros(2, np.uint8),
            ),
            "a train label is 10",
        ),
        (
            npz,
            lambda r: np.savez(
                r / "mnist.npz",
                x_train=np.zeros((2, 28, 28), np.uint8),
                y_train=np.zeros(3, np.uint8),
                x_test=np.zeros((2, 28, 28), np.uint8),
                y_test=np.zeros(2, np.uint8),
            ),
            "2 train images, yet 3 labels",
        ),
    ],
)
def test_a_wrong_mnist_is_one_line(tmp_path: Path, build, harm, words: str) -> None:
    root = build(tmp_path)
    harm(root)
    with pytest.raises(UserError, match=words) as error:
        open_data(f"mnist:{root}")
    assert "\n" not in str(error.value)


def test_an_npz_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    npz(tmp_path)
    with np.load(tmp_path / "mnist.npz") as file:
        arrays = dict(file)
    arrays["y_test"] = np.array([Evil(tmp_path / "run")], object)
    np.savez(tmp_path / "mnist.npz", **arrays)
    with pytest.raises(UserError, match="cannot be read"):
        open_data(f"mnist:{tmp_path}")
    assert not (tmp_path / "run").exists()


def photographs(name: str, count: int = 10) -> tuple[np.ndarray, list[int]]:
    """The rows of a batch, (N, 3072): the planes R, G, B; and the labels."""
    draw = np.random.default_rng(list(name.encode()))
    return draw.integers(0, 256, (count, 3072), np.uint8), [k % 10 for k in range(count)]


BATCHES = (*(f"data_batch_{k}" for k in range(1, 6)), "test_batch")


class Python2Pickler(pickle._Pickler):
    """Writes as Python 2 did: bytes are its `str`, and numpy has its old module names."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_str_of_python_2(self, value: bytes) -> None:
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = save_str_of_python_2


def pickled(content: object) -> bytes:
    buffer = io.BytesIO()
    Python2Pickler(buffer, 2).dump(content)
    return buffer.getvalue().replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


def python_version(root: Path) -> Path:
    folder = root / "cifar-10-batches-py"
    for name in BATCHES:
        data, labels = photographs(name)
        names = [f"{name}_{k}.png".encode() for k in range(len(labels))]
        keys = (b"batch_label", b"labels", b"data", b"filenames")
        content = dict(zip(keys, (name.encode(), labels, data, names), strict=True))
        trees.write(folder / name, pickled(content))
    trees.write(folder / "batches.meta", pickled({b"label_names": [b"airplane"]}))
    return root


def python_3_version(root: Path) -> Path:
    """As above, pickled again by Python 3."""
    for name in BATCHES:
        data, labels = photographs(name)
        content = pickle.dumps({b"labels": labels, b"data": data}, protocol=2)
        trees.write(root / "cifar-10-batches-py" / name, content)
    return root


def binary_version(root: Path) -> Path:
    for name in BATCHES:
        data, labels = photographs(name)
        content = np.concatenate([np.array(labels, np.uint8)[:, None], data], 1).tobytes()
        trees.write(root / "cifar-10-batches-bin" / f"{name}.bin", content)
    return root


def tarred(root: Path, version: str) -> Path:
    """The official archive of a version, as it is downloaded."""
    build = binary_version if version == "binary" else python_version
    folder = next(build(root / "unpacked").iterdir())
    (root / "packed").mkdir()
    with tarfile.open(root / "packed" / f"cifar-10-{version}.tar.gz", "w:gz") as archive:
        archive.add(folder, folder.name)
    return root / "packed"


@pytest.mark.parametrize(
    "build",
    [
        python_version,
        python_3_version,
        binary_version,
        lambda root: tarred(root, "binary"),
        lambda root: tarred(root, "python"),
    ],
    ids=["python", "python-3", "binary", "binary-packed", "python-packed"],
)
def test_cifar10_is_the_same_in_both_official_versions(tmp_path: Path, build) -> None:
    root = build(tmp_path)
    dataset = open_data(f"cifar10:{root}")
    assert dataset.table.split.value_counts().to_dict() == {"train": 50, "test": 10}
    data, _ = photographs("data_batch_2")
    place = list(dataset.table.path).index("train/00013")
    assert dataset.classes[dataset.labels[place]] == "cat"
    image = dataset.reader.image("train/00013")
    assert image.shape == (32, 32, 3)
    assert (image[5, 7] == data[3].reshape(3, 32, 32)[:, 5, 7]).all()
    pixels = load_pixels(dataset, 32)
    assert (pixels.images[place] == image).all()
    inner = next(root.iterdir())
    if inner.is_dir():
        assert (open_data(f"cifar10:{inner}").ids == dataset.ids).all()
    assert verify(dataset) == []


class Evil:
    """Makes a file when it is unpickled."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return os.mkdir, (str(self.file),)


class Touching:
    """Replaces what an object is by the state it is given."""

    def __init__(self, call: object, arguments: tuple, state: object) -> None:
        self.reduced = call, arguments, state

    def __reduce__(self):
        return self.reduced


def test_a_pickle_that_would_run_a_program_does_not(tmp_path: Path) -> None:
    root = python_version(tmp_path)
    file = root / "cifar-10-batches-py" / "data_batch_1"
    rebuild = np.zeros(1).__reduce__()[0]
    objects = Touching(
        rebuild, (np.ndarray, (0,), b"b"), (1, (1,), np.dtype("O"), False, [Evil(tmp_path / "run")])
    )
    numbers = Touching(
        rebuild, (np.ndarray, (0,), b"b"), (1, (1,), np.dtype("O"), False, b"8bytes..")
    )
    for content in (
        Evil(tmp_path / "run"),
        {b"data": Evil(tmp_path / "run"), b"labels": [1]},
        {b"data": objects, b"labels": [1]},
        {b"data": numbers, b"labels": [1]},
        {b"data": np.zeros((1, 3072)), b"labels": [1]},
        {b"data": np.zeros((1, 3072), np.uint8), b"labels": [1000]},
        {b"data": np.zeros((1, 3071), np.uint8), b"labels": [1]},
        {b"data": b"text", b"labels": [1]},
        {b"labels": [1]},
        [1, 2],
    ):
        file.write_bytes(pickle.dumps(content, protocol=2))
        with pytest.raises(UserError, match="data_batch_1: cannot be read") as error:
            open_data(f"cifar10:{root}")
        assert "\n" not in str(error.value)
        assert not (tmp_path / "run").exists()
    for content in (
        b"",
        b"cos\nsystem\n(S'touch run'\ntR.",
        b"cbuiltins\neval\n(S'1'\ntR.",
        b"\x80",
        b"\x80\x02K\x01r\xff\xff\xff\x7f.",
        b"I1\np4294967295\n.",
    ):
        file.write_bytes(content)
        with pytest.raises(UserError, match="cannot be read"):
            open_data(f"cifar10:{root}")


def test_a_batch_that_is_missing_or_cut_is_one_line(tmp_path: Path) -> None:
    root = binary_version(tmp_path)
    file = root / "cifar-10-batches-bin" / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-5])
    with pytest.raises(UserError, match=r"data_batch_3\.bin: cannot be read"):
        open_data(f"cifar10:{root}")
    file.unlink()
    with pytest.raises(UserError, match="not complete here"):
        open_data(f"cifar10:{root}")
    for text in ("cifar10", f"cifar10:{tmp_path / 'absent'}", "mnist", f"mnist:{tmp_path}/absent"):
        with pytest.raises(UserError, match=":PATH"):
            open_data(text)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no CIFAR-10 here"):
        open_data(f"cifar10:{tmp_path}/empty")
    with pytest.raises(UserError, match=r"no mnist.npz"):
        open_data(f"mnist:{tmp_path}/empty")


@pytest.mark.parametrize("packed", [True, False])
def test_cifar10_in_class_folders(tmp_path: Path, packed: bool) -> None:
    image = trees.encoded(trees.pixels(3, 32, 32), "PNG")
    names = ["train/cat/0001.png", "train/dog/0001.png", "test/cat/0007.png", "readme/x/y.png"]
    if packed:
        trees.archive(tmp_path / "cifar10_jpeg.zip", dict.fromkeys(names, image))
    else:
        for name in names:
            trees.write(tmp_path / name, image)
    dataset = open_data(f"cifar10:{tmp_path}")
    assert set(zip(dataset.table.split, dataset.table.label, strict=True)) == {
        ("train", "cat"),
        ("train", "dog"),
        ("test", "cat"),
    }
    assert sorted(dataset.labels.tolist()) == [3, 3, 5]
    assert verify(dataset) == []


def test_the_stamp_follows_the_pixels() -> None:
    array = np.zeros((2, 4, 4, 1), np.uint8)
    before = ArrayReader({"train": array}).stamp("train/00000")
    changed = array.copy()
    changed[1, 0, 0] = 1
    assert ArrayReader({"train": array.copy()}).stamp("train/00001") == before
    assert ArrayReader({"train": changed}).stamp("train/00000") != before
    assert ArrayReader({}).stamp("train/00000") == "absent"


def mnist(root: Path) -> Dataset:
    return open_data(f"mnist:{root / 'mnist'}")


def test_validation_is_drawn_from_the_official_training_images(shared_data: Path) -> None:
    dataset = mnist(shared_data)
    assert dataset.table.split.value_counts().to_dict() == {"train": 60000, "test": 10000}
    train, val, test = dataset.split(seed=0, fractions=(0.9, 0.1, 0.0))
    assert (len(test), len(train) + len(val)) == (10000, 60000)
    assert all(path.startswith("test/") for path in test.table.path)
    assert all(path.startswith("train/") for path in [*train.table.path, *val.table.path])
    share = np.array(list(val.counts.values())) / np.array(
        [a + b for a, b in zip(val.counts.values(), train.counts.values(), strict=True)]
    )
    assert np.abs(share - 0.1).max() < 0.001
    other = dataset.split(seed=1, fractions=(0.9, 0.1, 0.0)).val
    assert len(set(other.table.path) & set(val.table.path)) < 0.2 * len(val)


def test_the_real_digits_train_at_their_own_size(shared_data: Path) -> None:
    config = read_config(
        {
            "data": {
                "name": f"mnist:{shared_data / 'mnist'}",
                "size": 28,
                "channels": 1,
                "options": {"per_class": 60},
            },
            "training": {"augment": None},
        }
    )
    splits, train, val = open_parts(config, Progress())
    assert train.images.shape[1:] == (28, 28, 1)
    assert set(train.dataset.table.split) == set(val.dataset.table.split) == {"train"}
    for part in (train, val):
        names = part.dataset.table.path.iloc[:20]
        want = np.stack([part.dataset.reader.image(name) for name in names])
        assert (part.images[np.arange(len(names))] == want).all()
    x = train.x()
    assert x.shape[1] == 1
    assert 0.1 < float(x.mean()) < 0.16  # MNIST's mean is 0.1307
    assert torch.equal((x * 255).round() / 255, x)
    assert splits.test.counts.keys() == train.dataset.counts.keys()


def test_the_real_photographs(shared_data: Path) -> None:
    dataset = open_data(f"cifar10:{shared_data / 'cifar10'}")
    assert dataset.table.split.value_counts().to_dict() == {"train": 8000, "test": 2000}
    assert set(dataset.counts.values()) == {1000}
    assert load_pixels(dataset.balanced(2), 32).images.shape == (20, 32, 32, 3)


def test_a_pickle_cannot_change_what_it_is_read_with(tmp_path: Path) -> None:
    root = python_version(tmp_path)
    file = root / "cifar-10-batches-py" / "data_batch_1"
    before = dict(vars(cifar10._new_bytes)), dict(vars(cifar10._Array))
    named = (b"c_codecs\nencode\n", b"cnumpy\nndarray\n", b"cnumpy.core.multiarray\n_reconstruct\n")
    for name in named:
        file.write_bytes(name + b"}(S'mark'\nS'left'\nub.")
        with pytest.raises(UserError, match="cannot be read"):
            open_data(f"cifar10:{root}")
    assert (dict(vars(cifar10._new_bytes)), dict(vars(cifar10._Array))) == before


def test_an_archive_that_is_cut_or_lacks_a_batch_is_one_line(tmp_path: Path) -> None:
    file = tarred(tmp_path, "binary") / "cifar-10-binary.tar.gz"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="download it again") as error:
        open_data(f"cifar10:{file.parent}")
    assert "\n" not in str(error.value)
    with tarfile.open(file, "w:gz") as archive:
        archive.add(Path(__file__), "cifar-10-batches-bin/data_batch_1.bin")
    with pytest.raises(UserError, match=r"holds no data_batch_2\.bin"):
        open_data(f"cifar10:{file.parent}")
