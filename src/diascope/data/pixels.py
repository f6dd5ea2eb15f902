"""Decoded images of a dataset, handed out as batches of tensors."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diascope.data.dataset import Dataset
from diascope.data.verify import Problem


class Gathered(Protocol):
    """What has rows of uint8 and gives some of them, by positions; need not hold them."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape that the whole array would have."""
        ...

    @property
    def dtype(self) -> np.dtype[np.uint8]:
        """The type of the array."""
        ...

    def __len__(self) -> int: ...
    def __getitem__(self, rows: Any, /) -> NDArray[np.uint8]: ...


class Rows:
    """Some rows of an array, in some order, gathered when they are asked for."""

    def __init__(self, array: NDArray[np.uint8] | Gathered, index: NDArray[np.int64]) -> None:
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

    def narrow(self, rows: Any) -> NDArray[np.uint8]:
        """Return the rows; of images that are stored as grey, one channel where all of them are."""
        narrow = getattr(self.array, "narrow", self.array.__getitem__)
        return np.asarray(narrow(self.index[rows]))

    @property
    def grey(self) -> bool:
        """Whether all rows are of images that are stored as grey."""
        grey = getattr(self.array, "grey", None)
        return grey is not None and bool(grey(self.index))

    def expect(self, rows: Any) -> None:
        """Have the disk fetch these rows, for a reading that comes soon; returns at once."""
        if hasattr(self.array, "expect"):
            self.array.expect(self.index[rows])

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
        x = self.raw(rows, device).to(torch.float32).div_(255)
        return repeated(x, self.channels)

    def raw(self, rows: Any = slice(None), device: str | torch.device = "cpu") -> Tensor:
        """Return images (B, C, H, W), uint8, with channels_last strides.

        They are of one channel, whatever C, where all of them are stored as grey.
        """
        rows = self._rows(rows)
        images = self.images
        found = images.narrow(rows) if isinstance(images, Rows) else images[rows]
        return torch.from_numpy(np.ascontiguousarray(found)).to(device).permute(0, 3, 1, 2)

    @cached_property
    def grey(self) -> bool:
        """Whether all images are stored as grey, so that `raw` has always one channel."""
        return isinstance(self.images, Rows) and self.images.grey

    def expect(self, rows: Any) -> None:
        """Have the disk fetch these images, for a reading that comes soon; returns at once."""
        if isinstance(self.images, Rows):
            self.images.expect(self._rows(rows))

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
        images = self.images
        if isinstance(images, Rows) and hasattr(images.array, "contents"):
            return list(images.array.contents(images.index))
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


def repeated(x: Tensor, channels: int) -> Tensor:
    """Return x (B, channels, H, W), of x (B, 1 or channels, H, W); channels_last if repeated."""
    if x.shape[1] == channels:
        return x
    count, _, height, width = x.shape
    out = torch.empty(count, height, width, channels, dtype=x.dtype, device=x.device)
    out.copy_(x.permute(0, 2, 3, 1))
    return out.permute(0, 3, 1, 2)


def _view(array: NDArray[np.uint8] | Rows, rows: NDArray[np.int64]) -> Rows:
    if isinstance(array, Rows):
        return Rows(array.array, array.index[rows])
    return Rows(array, rows)


def _gather(array: NDArray[np.uint8] | Rows, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(array[rows])
