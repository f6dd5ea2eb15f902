"""What an evaluation finds before it: a trained model, the images, and the models beside it."""

from __future__ import annotations

import math
import os
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from diascope.audit.bench import Rows, drawn
from diascope.data import Pixels, Preprocess
from diascope.errors import Doubt, gathered
from diascope.randomness import derive
from diascope.studies.jobs import digest

Column = NDArray[Any]  # (N,)
_DOUBTS = "doubts of this part"


def _nobody(passes: float) -> None:
    pass


class Sample(NamedTuple):
    """Some images on the exam's device: x (B, C, H, W), y (B,), ids (B,), masks (B, H, W) bool.

    masks: the regions, empty where an image has none; None where no image has one.
    """

    rows: Rows
    x: Tensor
    y: Tensor
    ids: Tensor
    masks: Tensor | None

    def take(self, place: NDArray[np.int64]) -> Sample:
        """Return some of the images, by their places."""
        here = torch.from_numpy(place).to(self.x.device)
        masks = None if self.masks is None else self.masks[here]
        return Sample(self.rows[place], self.x[here], self.y[here], self.ids[here], masks)


@dataclass
class Exam:
    """One trained model and the N images that it is examined on.

    classes: of the model's outputs, in order; the labels of `pixels` are numbered so. beside:
    other models by name, to look at together with this one. seed: of everything that is drawn;
    it does not depend on the training seed, so that models meet the same noise. scratch: a folder
    for parts that are finished, where there is one. tell: to be called with the forward passes
    that were made (a backward pass counts two). preprocess: how images became squares, for
    further regions of them.
    """

    model: nn.Module
    pixels: Pixels
    classes: tuple[str, ...]
    device: torch.device
    scratch: Path
    beside: Mapping[str, nn.Module] = field(default_factory=dict)
    batch_size: int = 64
    seed: int = 0
    tell: Callable[[float], None] = _nobody
    preprocess: Preprocess = field(default_factory=Preprocess)

    def seeded(self, purpose: str) -> torch.Generator:
        """Return a generator that depends on the seed and the purpose alone."""
        return torch.Generator().manual_seed(derive(self.seed, purpose) & (2**62 - 1))

    def kept(self, part: Sequence[Any], make: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Return the arrays that `make` returns, or those that it returned before an interrupt.

        part: plain values by which this part of the examination is known among all of it; arrays
        (n,) of rows may be among them. A `Doubt` that was warned of then is warned of again.
        """
        name = digest([each.tolist() if hasattr(each, "tolist") else each for each in part])
        file = self.scratch / f"{name}-{self.batch_size}.npz"
        found = _read(file)
        if found is None:
            with gathered() as doubts:
                found = {key: np.asarray(value) for key, value in make().items()}
            found[_DOUBTS] = np.array(doubts, dtype=np.str_)
            if self.scratch.is_dir():
                _write(file, found)
        for doubt in found.pop(_DOUBTS).tolist():
            warnings.warn(str(doubt), Doubt, stacklevel=2)
        return found

    def blank(self) -> NDArray[np.float64]:
        """Return a column (N,) of NaN."""
        return np.full(len(self.pixels), np.nan)

    def drawn(self, count: int | None, among: NDArray[np.bool_] | None = None) -> Rows:
        """Return the rows of at most `count` images, by hashed id, each class by its share.

        A smaller draw is part of a larger one, and the same for every model. among: (N,) the
        images that may be drawn; None for all.
        """
        if among is None:
            return drawn(self.pixels, count, self.seed)
        rows = np.flatnonzero(among)
        return rows[drawn(self.pixels.take(rows), count, self.seed)] if len(rows) else rows

    def batches(self, rows: Rows, size: int | None = None) -> Iterator[Sample]:
        """Yield the images `rows` in pieces of `size`, by default the batch size."""
        size = size or self.batch_size
        for start in range(0, len(rows), size):
            yield self.sample(rows[start : start + size])

    def sample(self, rows: Rows) -> Sample:
        """Return the images `rows`."""
        pixels, device = self.pixels, self.device
        return Sample(
            rows,
            pixels.x(rows, device),
            pixels.y(rows, device),
            pixels.ids(rows, device),
            None if pixels.masks is None else pixels.m(rows, device),
        )


def _write(file: Path, arrays: Mapping[str, Any]) -> None:
    """Write arrays so that the file is whole or not there."""
    part = file.with_suffix(f".{os.getpid()}")
    with part.open("wb") as handle:
        np.savez(handle, **arrays)
    part.replace(file)


def _read(file: Path) -> dict[str, NDArray[Any]] | None:
    try:
        with file.open("rb") as handle, np.load(handle, allow_pickle=False) as content:
            return {str(key): content[key] for key in content}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None


def at(name: str, eps: float) -> str:
    """Return the name of a column at an epsilon, such as "fgsm@0.25"."""
    return f"{name}@{eps:g}"


@dataclass(frozen=True)
class Measured:
    """What an evaluation found: columns (N,) by name, and what speaks of the model as a whole.

    about: plain values for the report. masking: what the checks on gradient masking say, each a
    mapping with "name", "verdict" ("passed", "failed", "not applicable") and "evidence"; None where
    the evaluation attacks nothing.
    """

    columns: dict[str, Column]
    about: dict[str, Any] = field(default_factory=dict)
    masking: list[dict[str, Any]] | None = None


def known(value: Any) -> Any:
    """Return a plain value with None for each number in it that is not finite, for JSON."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: known(each) for key, each in value.items()}
    return [known(each) for each in value] if isinstance(value, list | tuple) else value
