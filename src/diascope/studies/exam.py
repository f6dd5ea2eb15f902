"""What an evaluation finds before it: a trained model, the images, and the models beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from diascope.data import Pixels
from diascope.randomness import derive

Column = NDArray[Any]  # (N,)


def _nobody(passes: float) -> None:
    pass


@dataclass
class Exam:
    """One trained model and the N images that it is examined on.

    classes: of the model's outputs, in order; the labels of `pixels` are numbered so. beside:
    other models by name, to look at together with this one. seed: of everything that is drawn;
    it does not depend on the training seed, so that models meet the same noise. scratch: a folder
    for checkpoints. tell: to be called with the forward passes that were made (a backward pass
    counts two).
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

    def seeded(self, purpose: str) -> torch.Generator:
        """Return a generator that depends on the seed and the purpose alone."""
        return torch.Generator().manual_seed(derive(self.seed, purpose) & (2**62 - 1))

    def blank(self) -> NDArray[np.float64]:
        """Return a column (N,) of NaN."""
        return np.full(len(self.pixels), np.nan)


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
