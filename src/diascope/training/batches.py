"""The batches of an epoch: the same images in the same order whenever they are asked for."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diascope.data.augment import Augment
from diascope.data.pixels import Pixels, repeated
from diascope.errors import UserError
from diascope.randomness import derive


@dataclass(frozen=True)
class Batch:
    """Images x (B, C, H, W) in [0, 1], labels y (B,) and ids (B,)."""

    x: Tensor
    y: Tensor
    ids: Tensor


@dataclass(frozen=True)
class Batches:
    """The training batches of every epoch, augmented on `device`.

    An epoch sees `share` of the images once, in an order drawn by (seed, epoch). Its batches
    hold at most `batch_size` images, and as nearly equally many as can be, so that none is left
    with a single image, of which batch-norm could learn nothing.
    """

    pixels: Pixels
    batch_size: int
    seed: int
    augment: Augment | None = None
    share: float = 1.0
    device: torch.device | str = "cpu"

    @property
    def images(self) -> int:
        """The number of images an epoch sees."""
        return max(1, round(self.share * len(self.pixels)))

    def __len__(self) -> int:
        return math.ceil(self.images / self.batch_size)

    def rows(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the rows of each batch of `epoch`."""
        draw = np.random.default_rng(derive(self.seed, "order", epoch))
        order = draw.permutation(len(self.pixels))[: self.images]
        return np.array_split(order, len(self))

    def load(self, rows: NDArray[np.int64], epoch: int) -> Batch:
        """Return the augmented batch of these rows, which does not depend on the other rows."""
        y = self.pixels.y(rows, device=self.device)
        ids = self.pixels.ids(rows)
        if self.augment is None:
            return Batch(self.pixels.x(rows, device=self.device), y, ids)
        channels = self.pixels.channels
        x = self.pixels.raw(rows, device=self.device)
        if not self.pixels.grey:
            x = repeated(x, channels)
        x = self.augment(x, ids, self.seed, epoch)
        return Batch(repeated(x, channels), y, ids)

    def expect(self, rows: NDArray[np.int64]) -> None:
        """Have the disk fetch these rows, which are loaded soon; returns at once."""
        self.pixels.expect(rows)


def class_weight(labels: NDArray[np.int64], classes: tuple[str, ...]) -> Tensor:
    """Return weights (K,) in inverse proportion to the classes' frequencies; their mean over
    the images is 1: N / (K n_k).

    Raises `UserError` where a class has no image.
    """
    counts = np.bincount(labels, minlength=len(classes))
    if not counts.all():
        absent = classes[int(counts.argmin())]
        raise UserError(
            f"training.class_weights: no training image is of class '{absent}'; "
            "leave it out of data.classes, or set class_weights to none"
        )
    return torch.tensor(counts.sum() / (len(classes) * counts), dtype=torch.float32)
