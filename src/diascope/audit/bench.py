"""The bench that a stage finds: one model, the images, and how hard to try."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diascope.audit.effort import Effort
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject
from diascope.data import Pixels
from diascope.evaluation import predict_logits
from diascope.randomness import derive

Rows = NDArray[np.int64]
SOON = 3  # images a class, by which the first of every class has its place


def _nobody(passes: float) -> None:
    pass


@dataclass
class Bench:
    """One model under audit, with everything a stage may ask for.

    model: `subject.model` on `device`. pixels: the N images audited. validation: the images that
    the model's own split held out for choosing, None where none are known. elsewhere: images of
    other hospitals by name. others: the other models of the audit by name, and `cards` theirs.
    table: a row an image, with the columns of the stages that ran before. scratch: a folder for
    checkpoints, None for none of them. identity: a digest of model and images, see
    `stored.identity`. tell: to be called with the passes that were made, of those the plan foresaw.
    """

    subject: Subject
    model: nn.Module
    pixels: Pixels
    settings: AuditSettings
    effort: Effort
    device: torch.device
    scratch: Path | None = None
    validation: Pixels | None = None
    elsewhere: Mapping[str, Pixels] = field(default_factory=dict)
    others: Mapping[str, nn.Module] = field(default_factory=dict)
    cards: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    table: pd.DataFrame = field(default_factory=pd.DataFrame)
    batch_size: int = 64
    identity: str = ""
    tell: Callable[[float], None] = _nobody

    @property
    def classes(self) -> int:
        """How many classes the model tells apart."""
        return len(self.pixels.dataset.classes)

    @property
    def epsilons(self) -> tuple[float, ...]:
        """The grid of the audit, 0 first."""
        return self.settings.grid(self.pixels.size)

    @property
    def reference(self) -> float:
        """The one epsilon at which a model is attacked where one must do; 0 where none is."""
        return self.settings.reference(self.pixels.size)

    @property
    def groups(self) -> NDArray[np.object_]:
        """The patient or lesion of each image (N,)."""
        return self.pixels.dataset.groups

    @property
    def bootstrap(self) -> dict[str, int]:
        """The options of every bootstrap: replicates and seed."""
        return {"replicates": self.settings.replicates, "seed": self.settings.seed}

    @cached_property
    def logits(self) -> Tensor:
        """What the model answers to every image, (N, K) float32 on the CPU; asked once."""
        return predict_logits(self.model, self.pixels, self.batch_size, self.device)

    def checkpoint(self, name: str) -> Path | None:
        """Return the path of a checkpoint of this stage; gone once the stage is done."""
        return None if self.scratch is None else self.scratch / f"{name}.safetensors"

    def drawn(
        self,
        count: int | None,
        pixels: Pixels | None = None,
        among: NDArray[np.bool_] | None = None,
    ) -> Rows:
        """Return the rows of at most `count` images, drawn by hashed id, each class by its share.

        A smaller draw is part of a larger one, so that stages attack the same images. among: (N,)
        the images that may be drawn; None for all.
        """
        pixels = self.pixels if pixels is None else pixels
        if among is None:
            return drawn(pixels, count, self.settings.seed)
        rows = np.flatnonzero(among)
        return rows[drawn(pixels.take(rows), count, self.settings.seed)] if len(rows) else rows

    def drawn_of_both(self, count: int | None, side: NDArray[np.bool_]) -> Rows:
        """Return the rows of at most `count` images, as many of one side as of the other.

        side: (N,) on which each image is. Where one side has too few, the other fills up; within
        a side each class has its share. What mixes the sides is not to be read from such a draw.
        """
        if count is None or count >= len(side):
            return np.arange(len(side))
        order = {bool(s): self._ordered(np.flatnonzero(side == s)) for s in (True, False)}
        turn = np.concatenate([np.arange(len(rows)) for rows in order.values()])
        rows: Rows = np.concatenate(list(order.values()))[np.argsort(turn, kind="stable")]
        return np.sort(rows[:count])

    def _ordered(self, rows: Rows) -> Rows:
        return rows[by_lot(self.pixels.take(rows), self.settings.seed)] if len(rows) else rows

    def batches(self, rows: Rows) -> Iterator[Rows]:
        """Yield rows in pieces of `batch_size`."""
        for start in range(0, len(rows), self.batch_size):
            yield rows[start : start + self.batch_size]

    def seeded(self, purpose: str) -> torch.Generator:
        """Return a generator that depends on the seed and the purpose alone."""
        return torch.Generator().manual_seed(derive(self.settings.seed, purpose) & (2**62 - 1))


def drawn(pixels: Pixels, count: int | None, seed: int) -> Rows:
    """Return the rows of at most `count` images: by hashed id, each class by its share."""
    if count is None or count >= len(pixels):
        return np.arange(len(pixels))
    return np.sort(by_lot(pixels, seed)[:count])


def by_lot(pixels: Pixels, seed: int) -> Rows:
    """Return all rows in the order in which they are drawn: each class by its share.

    The images of a class come by hashed id and are spread evenly over the order, so that its
    first n images hold about n times the share of each class. Of K classes none is missing from
    the first 4 K: the first image of a rare one is brought forward to there.
    """
    labels, ids = pixels.dataset.labels, pixels.dataset.ids
    lot = np.array([derive(seed, "drawn", int(i)) for i in ids])
    order = np.argsort(lot)
    of_class = pd.Series(labels[order]).groupby(labels[order])
    rank = of_class.cumcount().to_numpy()
    place = (rank + 0.5) * len(ids) / of_class.transform("size").to_numpy()
    place = np.where(rank == 0, np.minimum(place, SOON * of_class.ngroups), place)
    ranked: Rows = order[np.argsort(place, kind="stable")]  # of equal ones the lot decides
    return ranked
