"""Where a run stands, on disk: complete or absent, whenever the process is killed.

The state names the epoch of its best weights, which lie in a file of their own: that file is
written before the state that names it, and removed only after a state that names another. So
whichever of the writes is the last to happen, the state that is found has its best weights.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
import torch

from diascope.errors import UserError
from diascope.files import replacing, write_text

STATE = "state.pt"
METRICS = "metrics.csv"
HALVES: tuple[str, ...] = (
    ".state.pt.*",
    ".best-*.pt.*",
    ".metrics.csv.*",
    ".config.yaml.*",
    ".split.csv.*",
)
HALVES += (".model.safetensors.*", ".validation.parquet.*", ".offline.csv.*")
FORMAT = 2

State = dict[str, Any]
Weights = dict[str, torch.Tensor]


class Store(Protocol):
    """Keeps the state of a run, and the weights of its best epoch."""

    def save(self, state: State) -> None:
        """Keep a state; `state["selection"]["epoch"]` names the best weights."""

    def load(self) -> State | None:
        """Return the last state kept, None where there is none."""

    def keep_best(self, epoch: int, weights: Weights) -> None:
        """Keep the weights of `epoch`, for a state that is saved next."""

    def best(self, epoch: int) -> Weights:
        """Return the weights of `epoch`."""

    def write_metrics(self, metrics: pd.DataFrame) -> None:
        """Write the table with a row an epoch."""


class MemoryStore:
    """A store for a run that nobody will resume: it keeps the best weights alone."""

    def __init__(self) -> None:
        self._best: Weights = {}

    def save(self, state: State) -> None:
        """Keep nothing."""

    def load(self) -> State | None:
        """Return None."""
        return None

    def keep_best(self, epoch: int, weights: Weights) -> None:
        """Keep a copy of the weights."""
        self._best = {key: value.detach().clone() for key, value in weights.items()}

    def best(self, epoch: int) -> Weights:
        """Return the weights kept last."""
        return self._best

    def write_metrics(self, metrics: pd.DataFrame) -> None:
        """Write nothing."""


class FolderStore:
    """A store in a run folder: `state.pt`, and `best-<epoch>.pt`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __str__(self) -> str:
        return str(self.folder)

    @property
    def path(self) -> Path:
        """Where the state is."""
        return self.folder / STATE

    def save(self, state: State) -> None:
        """Write the state, then remove best weights that it does not name, and half files."""
        with replacing(self.path) as temporary:
            torch.save({"format": FORMAT, **state}, temporary)
        best = self._best(state["selection"]["epoch"])
        for file in (*self.folder.glob("best-*.pt"), *self._halves()):
            if file != best:
                file.unlink(missing_ok=True)

    def load(self) -> State | None:
        """Return the state; raises `UserError` where it is damaged or of another version."""
        if not self.path.exists():
            return None
        state: State = _read(self.path)
        if state.get("format") != FORMAT:
            raise UserError(
                f"{self.path}: in format {state.get('format')}, this reads {FORMAT}; "
                "resume with the version of Diascope that config.yaml names"
            )
        return state

    def keep_best(self, epoch: int, weights: Weights) -> None:
        """Write the weights of `epoch`."""
        with replacing(self._best(epoch)) as temporary:
            torch.save(weights, temporary)

    def best(self, epoch: int) -> Weights:
        """Read the weights of `epoch`."""
        weights: Weights = _read(self._best(epoch))
        return weights

    def write_metrics(self, metrics: pd.DataFrame) -> None:
        """Write `metrics.csv`."""
        write_text(self.folder / METRICS, metrics.to_csv(index=False, lineterminator="\n"))

    def clear(self) -> None:
        """Remove the state, the best weights and half files."""
        for file in (self.path, *self.folder.glob("best-*.pt"), *self._halves()):
            file.unlink(missing_ok=True)

    def _halves(self) -> list[Path]:
        """Return the files that processes which were killed had not finished."""
        return [file for pattern in HALVES for file in self.folder.glob(pattern)]

    def _best(self, epoch: int) -> Path:
        return self.folder / f"best-{epoch + 1:04d}.pt"


def _read(path: Path) -> Any:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(
            f"{path}: cannot be read ({reason}); remove it and start the run anew"
        ) from None
