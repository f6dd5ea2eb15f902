"""Reading images that lie in memory as whole arrays, one a split."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diascope.data.dataset import Dataset, ReadError
from diascope.errors import UserError


@dataclass(frozen=True, eq=False)
class ArrayReader:
    """Reads the path `split/number`: a row of `arrays[split]`, each (N, H, W, 1 or 3) uint8."""

    arrays: Mapping[str, NDArray[np.uint8]]
    _stamps: dict[str, str] = field(default_factory=dict, repr=False)

    def image(self, path: str) -> NDArray[np.uint8]:
        """Return the image, (H, W, C)."""
        split, _, number = path.partition("/")
        try:
            image: NDArray[np.uint8] = self.arrays[split][int(number)]
        except (KeyError, ValueError, IndexError):
            raise ReadError(path, "there is no such image") from None
        return image

    def mask(self, path: str) -> NDArray[np.bool_]:
        """Raise `ReadError`: such data have no masks."""
        raise ReadError(path, "arrays of images have no masks")

    def stamp(self, path: str) -> str:
        """Return a hash of the whole array in which the image lies."""
        split = path.partition("/")[0]
        if split not in self.arrays:
            return "absent"
        if split not in self._stamps:
            array = np.ascontiguousarray(self.arrays[split])
            digest = hashlib.blake2b(repr(array.shape).encode(), digest_size=8)
            digest.update(array.data)
            self._stamps[split] = digest.hexdigest()
        return self._stamps[split]


def array_dataset(
    name: str,
    parts: Mapping[str, tuple[NDArray[np.uint8], NDArray[np.uint8]]],
    classes: Sequence[str],
    root: Path,
    stamps: Mapping[str, str] | None = None,
) -> Dataset:
    """Return the dataset of `parts`: images (N, H, W, C) and labels (N,) by official split.

    `stamps` are fingerprints of the arrays, by split, where they are known without reading them.
    An image's path, and so its id, is its split and its number there, in whatever files it lay.
    Raises `UserError` for a label that is no class, and for as many labels as images.
    """
    for split, (images, labels) in parts.items():
        if len(images) != len(labels):
            raise UserError(f"{root}: {len(images)} {split} images, yet {len(labels)} labels")
        if len(labels) and int(labels.max()) >= len(classes):
            raise UserError(f"{root}: a {split} label is {labels.max()}: not one of {name}'s")
    names = np.array(classes)
    columns = {
        "path": [f"{split}/{k:05d}" for split, (x, _) in parts.items() for k in range(len(x))],
        "label": [label for _, y in parts.values() for label in names[y].tolist()],
        "split": [split for split, (x, _) in parts.items() for _ in range(len(x))],
    }
    reader = ArrayReader(
        {split: images for split, (images, _) in parts.items()}, dict(stamps or {})
    )
    return Dataset.of(name, columns, classes, reader)
