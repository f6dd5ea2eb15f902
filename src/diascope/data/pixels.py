"""Decoded images of a dataset, handed out as batches of tensors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diascope.data.dataset import Dataset
from diascope.data.verify import Problem


class Rows:
    """Some rows of an array, in some order, gathered when they are asked for."""

    def __init__(self, array: NDArray[np.uint8], index: NDArray[np.int64]) -> None:
        self.array, self.index = array, index

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the gathered array would have."""
        return len(self.index), *self.array.shape[1:]

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """The type of the array."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, rows: Any) -> NDArray[np.uint8]:
        return np.asarray(self.array[self.index[rows]])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.array[self.index], dtype)


@dataclass(frozen=True, eq=False)
class Pixels:
    """The pixels of every image of `dataset`, row by row.

    `images` (N, H, W, C) uint8 and `masks` (N, H, W) uint8 of 0 and 1 stay on disk where they
    are memory-mapped; `masks` are the regions, of masks or boxes; None where no image has one, and
    `has_mask` (N,) bool says which have. `skipped` are the problems of the images that were left
    out.
    """

    dataset: Dataset
    images: NDArray[np.uint8] | Rows
    masks: NDArray[np.uint8] | Rows | None
    has_mask: NDArray[np.bool_]
    skipped: tuple[Problem, ...] = ()

    def __post_init__(self) -> None:
        counts = {len(self.dataset), len(self.images), len(self.has_mask)}
        if len(counts | ({len(self.masks)} if self.masks is not None else set())) > 1:
            raise ValueError(f"{self.dataset!r} does not fit images of shape {self.images.shape}")

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def size(self) -> int:
        """The height (and width) of the images."""
        return self.images.shape[1]

    @property
    def channels(self) -> int:
        """The number of channels, 1 or 3."""
        return self.images.shape[3]

    def x(self, rows: Any = slice(None), device: str | torch.device = "cpu") -> Tensor:
        """Return images (B, C, H, W), float32 in [0, 1], with channels_last strides."""
        batch = torch.from_numpy(_gather(self.images, self._rows(rows))).to(device)
        return batch.permute(0, 3, 1, 2).to(torch.float32).div_(255)

    def y(self, rows: Any = slice(None), device: str | torch.device = "cpu") -> Tensor:
        """Return class indices (B,), int64."""
        return torch.from_numpy(self.dataset.labels[self._rows(rows)]).to(device)

    def m(self, rows: Any = slice(None), device: str | torch.device = "cpu") -> Tensor:
        """Return regions (B, H, W), bool; nothing is inside where an image has none."""
        rows = self._rows(rows)
        if self.masks is None:
            return torch.zeros(len(rows), *self.images.shape[1:3], dtype=torch.bool, device=device)
        return torch.from_numpy(_gather(self.masks, rows)).to(device).bool()

    def ids(self, rows: Any = slice(None), device: str | torch.device = "cpu") -> Tensor:
        """Return image ids (B,), int64, to which random numbers belong."""
        return torch.from_numpy(self.dataset.ids[self._rows(rows)]).to(device)

    def take(self, rows: Any) -> Pixels:
        """Return the pixels of some rows, by positions, a boolean mask or a slice; no copy."""
        rows = self._rows(rows)
        return Pixels(
            self.dataset.take(rows),
            _view(self.images, rows),
            None if self.masks is None else _view(self.masks, rows),
            self.has_mask[rows],
        )

    def of(self, part: Dataset) -> Pixels:
        """Return the pixels of `part`, a piece of this dataset; images left out stay left out."""
        rows = [self._place[i] for i in part.ids.tolist() if i in self._place]
        return self.take(np.array(rows, np.int64))

    def fingerprints(self) -> list[str]:
        """Return 16 hexadecimal digits for each image, the same for the same pixels anywhere."""
        return [
            hashlib.blake2b(
                _gather(self.images, np.array([row])).tobytes(), digest_size=8
            ).hexdigest()
            for row in range(len(self))
        ]

    @cached_property
    def _place(self) -> dict[int, int]:
        return {image: row for row, image in enumerate(self.dataset.ids.tolist())}

    def _rows(self, rows: Any) -> NDArray[np.int64]:
        """Return `rows` (a tensor, array, list, mask, slice or range) as positions (B,)."""
        if isinstance(rows, Tensor):
            rows = rows.cpu().numpy()
        return np.arange(len(self))[rows if isinstance(rows, slice) else np.asarray(rows)]


def _view(array: NDArray[np.uint8] | Rows, rows: NDArray[np.int64]) -> Rows:
    if isinstance(array, Rows):
        return Rows(array.array, array.index[rows])
    return Rows(array, rows)


def _gather(array: NDArray[np.uint8] | Rows, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array[rows])
