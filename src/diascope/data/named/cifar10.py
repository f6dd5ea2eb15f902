"""CIFAR-10: 60,000 photographs of 32x32 pixels in 10 classes, 50,000 to train, 10,000 to test.

Krizhevsky 2009, "Learning multiple layers of features from tiny images". Three layouts are read:

- `cifar-10-batches-bin`, the official binary version, or `cifar-10-binary.tar.gz`;
- `cifar-10-batches-py`, the official Python version, or `cifar-10-python.tar.gz`. Its files are
  pickles, which could run any program when they are opened; they are read here with nothing but
  stand-ins for what the official ones name, of which the only thing that can come is arrays of
  bytes;
- class folders, `train/airplane/*` and so on, in the folder itself or in a ZIP file whose name
  begins with cifar10. Copies on the web are often lossy JPEG: then a mean error of some grey
  levels is in every pixel, and accuracies at eps = 8/255 do not compare with published ones.

About 3% of the official test images have a near-duplicate among the training images (Barz and
Denzler 2020, "Do we train on test data?"); no file groups them.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diascope.data.arrays import array_dataset
from diascope.data.dataset import Dataset
from diascope.data.downloads import folder_of
from diascope.data.named import DATASETS
from diascope.data.readers import FileReader, brief, listing
from diascope.errors import UserError

CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
SIDE = 32
_BYTES = 3 * SIDE * SIDE
_LARGEST = 1 << 26  # bytes of a batch file; the official ones have 2**25
_TRAIN = [f"data_batch_{k}" for k in range(1, 6)]
_FOLDER = re.compile(r"(?:.*[/!])?(train|test)/([^/]+)/[^/]+")

Part = tuple[NDArray[np.uint8], NDArray[np.uint8]]


@DATASETS.register("cifar10")
def open_cifar10(root: Path | None) -> Dataset:
    """Return CIFAR-10 in the folder `root`: the official batches, or class folders.

    `root` is the folder of the batches or the one above it, where they may also lie packed. The
    official training and test sets are in the column `split`; a validation set is drawn from the
    training images (`Dataset.split`). Raises `UserError` where files are missing or damaged.
    """
    root = folder_of(root, "cifar10")
    for version in VERSIONS:
        batches = _batches(root, version)
        if batches:
            return array_dataset("cifar10", _parts(batches, version), CLASSES, root)
    return _from_folders(root)


@dataclass(frozen=True)
class Version:
    """One of the two official downloads: its folder, its archive, and how a batch is read."""

    folder: str
    archive: str
    suffix: str
    read: Callable[[bytes], Part]


def _batches(root: Path, version: Version) -> dict[str, bytes]:
    """Return the content of the six batches by their places; none where the version is not here."""
    names = [f"{name}{version.suffix}" for name in [*_TRAIN, "test_batch"]]
    for folder in (root, root / version.folder):
        if (folder / names[0]).is_file():
            return {str(folder / name): _content(folder / name) for name in names}
    packed = root / version.archive
    return _untarred(packed, names) if packed.is_file() else {}


def _parts(batches: dict[str, bytes], version: Version) -> dict[str, Part]:
    """Return images (N, 32, 32, 3) and labels (N,) by split."""
    found = [_read(place, content, version.read) for place, content in batches.items()]
    parts = {}
    for split, some in {"train": found[:-1], "test": found[-1:]}.items():
        images, labels = (np.concatenate(column) for column in zip(*some, strict=True))
        planes = images.reshape(-1, 3, SIDE, SIDE)
        parts[split] = np.ascontiguousarray(planes.transpose(0, 2, 3, 1)), labels
    return parts


def _content(file: Path) -> bytes:
    try:
        if file.stat().st_size > _LARGEST:
            raise UserError(f"{file}: is larger than {_LARGEST >> 20} MiB: not of CIFAR-10")
        return file.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{file}: there is no such file: CIFAR-10 is not complete here") from None
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({brief(error)})") from None


def _untarred(file: Path, names: list[str]) -> dict[str, bytes]:
    """Return the content of the files called `names` in an archive, in the order of `names`."""
    found: dict[str, bytes] = {}
    try:
        with tarfile.open(file) as archive:
            for member in archive:
                name = member.name.rpartition("/")[2]
                stream = archive.extractfile(member) if name in names else None
                if stream is not None:
                    found[name] = stream.read(_LARGEST)
    except (OSError, EOFError, tarfile.TarError, zlib.error) as error:
        raise UserError(f"{file}: cannot be read ({brief(error)}): download it again") from None
    missing = [name for name in names if name not in found]
    if missing:
        raise UserError(f"{file}: holds no {missing[0]}: CIFAR-10 is not complete here")
    return {f"{file}!{name}": found[name] for name in names}


def _read(place: str, content: bytes, read: Callable[[bytes], Part]) -> Part:
    try:
        return read(content)
    except Exception as error:  # a damaged pickle raises almost anything
        raise UserError(f"{place}: cannot be read ({brief(error)}): download it again") from None


def _read_binary(content: bytes) -> Part:
    """Return images (N, 3072) and labels (N,): a record is a label and the planes R, G, B."""
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + _BYTES)
    return records[:, 1:], records[:, 0]


def _read_pickle(content: bytes) -> Part:
    """Return images (N, 3072) and labels (N,) of one batch of the Python version."""
    for operation, argument, _ in pickletools.genops(content):
        if "PUT" in operation.name and isinstance(argument, int) and argument > len(content):
            raise ValueError("it asks for more memory than it has bytes")
    batch = _Unpickler(io.BytesIO(content), encoding="bytes").load()
    data, labels = batch[b"data"], batch[b"labels"]
    if not (isinstance(data, _Array) and data.values is not None and isinstance(labels, list)):
        raise ValueError("not a batch of CIFAR-10")
    return data.values.reshape(-1, _BYTES), np.frombuffer(bytes(labels), np.uint8)


@dataclass
class _Type:
    """Stands for numpy.dtype: its name alone."""

    name: object
    state: object = None

    def __setstate__(self, state: object) -> None:
        self.state = state


@dataclass
class _Array:
    """Stands for numpy.ndarray: of a pickled array's state, takes the bytes of uint8 alone."""

    values: NDArray[np.uint8] | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        plain = isinstance(content, bytes) and not fortran
        if not isinstance(kind, _Type) or kind.name not in (b"u1", "u1") or not plain:
            raise ValueError("an array that is not of bytes")
        self.values = np.frombuffer(content, np.uint8).reshape(shape)


def _new_type(name: object, *_: object) -> _Type:
    return _Type(name)


def _new_bytes(text: str, encoding: str) -> bytes:
    """Return what Python 3 means where it writes bytes in the protocol of Python 2."""
    if encoding != "latin1":
        raise ValueError(f"bytes in the encoding {encoding}")
    return text.encode("latin1")


class _Unpickler(pickle.Unpickler):
    """Reads numbers, text, bytes, lists and dictionaries, and stand-ins for three names."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a stand-in; raises `UnpicklingError` for any name that CIFAR-10 has not."""
        if name == "_reconstruct" and module in (
            "numpy.core.multiarray",
            "numpy._core.multiarray",
        ):
            return lambda *_: _Array()
        stand_ins: dict[tuple[str, str], Callable[..., Any]] = {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): _new_type,
            ("_codecs", "encode"): _new_bytes,
        }
        if (module, name) not in stand_ins:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which CIFAR-10 does not")
        stand_in = stand_ins[module, name]
        # a pickle may set attributes of what it names: let that be a function of this call alone
        return stand_in if isinstance(stand_in, type) else lambda *given: stand_in(*given)


VERSIONS = (
    Version("cifar-10-batches-bin", "cifar-10-binary.tar.gz", ".bin", _read_binary),
    Version("cifar-10-batches-py", "cifar-10-python.tar.gz", "", _read_pickle),
)


def _from_folders(root: Path) -> Dataset:
    """Return the images in class folders, of `root` or of a ZIP file in it."""
    archives = [f.name for f in sorted(root.iterdir()) if _is_archive(f)]
    splits = [name for name in ("train", "test") if (root / name).is_dir()]
    names = [name for place in splits or archives[:1] for name in listing(root, place)]
    found = [(name, match) for name in names if (match := _FOLDER.fullmatch(name))]
    if not found:
        raise UserError(
            f"{root}: no CIFAR-10 here: expected cifar-10-batches-bin, cifar-10-batches-py, or "
            "train and test with a folder a class, also in cifar10*.zip"
        )
    columns = {
        "path": [name for name, _ in found],
        "label": [match[2] for _, match in found],
        "split": [match[1] for _, match in found],
    }
    return Dataset.of("cifar10", columns, CLASSES, FileReader(root, (SIDE, SIDE)))


def _is_archive(file: Path) -> bool:
    name = file.name.lower()
    return name.startswith(("cifar10", "cifar-10")) and name.endswith(".zip")
