"""MNIST: 70,000 handwritten digits of 28x28 grey pixels, 60,000 to train and 10,000 to test.

LeCun, Bottou, Bengio and Haffner 1998, Proceedings of the IEEE 86:2278. Two layouts are read:

- the original's four files, `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`,
  `t10k-images-idx3-ubyte`, `t10k-labels-idx1-ubyte`, packed (`.gz`) or unpacked, in the folder
  itself or in `MNIST/raw`;
- `mnist.npz`, with the arrays x_train, y_train, x_test, y_test.

The writers of the digits are not named in either, so every image is a group of its own; the
official training and test sets come from different writers.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diascope.data.arrays import array_dataset
from diascope.data.dataset import Dataset
from diascope.data.downloads import folder_of
from diascope.data.named import DATASETS
from diascope.data.npz import read_npz
from diascope.data.readers import brief
from diascope.errors import UserError

CLASSES = tuple("0123456789")
SIDE = 28
_ARRAYS = ("x_train", "y_train", "x_test", "y_test")
_FILES = {"train": "train", "test": "t10k"}
_LARGEST = 1 << 28  # bytes of an unpacked file


@DATASETS.register("mnist")
def open_mnist(root: Path | None) -> Dataset:
    """Return MNIST in the folder `root`, as `mnist.npz` or as the four original files.

    The official training and test sets are in the column `split`; a validation set is drawn from
    the training images (`Dataset.split`). Grey: train with channels=1 and size=28, or larger.
    Raises `UserError` where the files are missing or damaged.
    """
    root = folder_of(root, "mnist")
    packed = root / "mnist.npz"
    arrays = _read_npz(packed) if packed.is_file() else _read_idx(root)
    parts = {}
    for split in ("train", "test"):
        images, labels = arrays[f"x_{split}"], arrays[f"y_{split}"]
        if images.shape[1:] != (SIDE, SIDE) or labels.ndim != 1:
            shapes = f"{images.shape} with labels {labels.shape}"
            raise UserError(f"{root}: the {split} images are {shapes}, not (N, 28, 28) and (N,)")
        parts[split] = images[..., None], labels
    return array_dataset("mnist", parts, CLASSES, root)


def _read_npz(file: Path) -> dict[str, NDArray[np.uint8]]:
    packed = read_npz(file, _ARRAYS, "MNIST")
    arrays = {name: array.values for name, array in zip(_ARRAYS, packed, strict=True)}
    for name, array in arrays.items():
        if array.dtype != np.uint8:
            raise UserError(f"{file}: {name} is {array.dtype}, expected 8 bits, 0 to 255")
    return arrays


def _read_idx(root: Path) -> dict[str, NDArray[np.uint8]]:
    folder = root / "MNIST" / "raw" if (root / "MNIST" / "raw").is_dir() else root
    kinds = {"x": "images-idx3-ubyte", "y": "labels-idx1-ubyte"}
    return {
        f"{key}_{split}": _idx(folder, f"{stem}-{kind}")
        for key, kind in kinds.items()
        for split, stem in _FILES.items()
    }


def _idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """Return the array of an idx file: magic 0 0 8 (bytes) and the rank, big-endian sizes, data."""
    names = (name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz")
    file = next((folder / each for each in names if (folder / each).is_file()), None)
    if file is None:
        raise UserError(f"{folder}: no mnist.npz and no {name}[.gz]: not a download of MNIST")
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content = stream.read(_LARGEST)
        rank = int(name[-7])
        if content[:4] != bytes([0, 0, 8, rank]):
            raise ValueError("not an idx file of bytes")
        shape = struct.unpack_from(f">{rank}I", content, 4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)
    except (OSError, ValueError, EOFError, zlib.error, struct.error) as error:
        raise UserError(f"{file}: cannot be read ({brief(error)}): download it again") from None
