"""What a training says while it runs: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bars

EVERY = 30.0  # seconds between two plain lines


class Progress:
    """Is told what happens, and says nothing. Its methods are what other kinds override."""

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Leave the terminal as it was."""

    def note(self, text: str) -> None:
        """Say one line."""

    def load(self, done: int, total: int) -> None:
        """Say that `done` of `total` images are decoded."""

    def step(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        """Say that `done` of `total` steps of an epoch are taken.

        `where` names the epoch; `speed` is in images a second; `left` is in seconds, for the
        whole run.
        """

    def copies(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        """Say that adversarial copies of `done` of `total` images are made; else as in `step`."""

    def epoch(self, row: Mapping[str, float], epochs: int, best: bool, left: float) -> None:
        """Say what an epoch came to: its row of metrics."""


class Lines(Progress):
    """One line an epoch, and one at least every `EVERY` seconds."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._said = time.monotonic()

    def note(self, text: str) -> None:
        """Say one line."""
        self._said = time.monotonic()
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def load(self, done: int, total: int) -> None:
        """Say how many images are decoded, now and then."""
        if time.monotonic() - self._said > EVERY:
            self.note(f"decoded {done} of {total} images")

    def step(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        """Say where the epoch stands, now and then."""
        if time.monotonic() - self._said > EVERY:
            self.note(f"{where}, step {done}/{total}, {speed:.0f} images/s, {_duration(left)} left")

    def copies(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        """Say how many copies are made, now and then."""
        if time.monotonic() - self._said > EVERY:
            self.note(f"{where}: {done} of {total}, {speed:.1f} images/s, {_duration(left)} left")

    def epoch(self, row: Mapping[str, float], epochs: int, best: bool, left: float) -> None:
        """Say the epoch's metrics."""
        self.note(epoch_line(row, epochs, best, left))


class Bar(Lines):
    """A bar that lives as long as the training; above it one line an epoch stays."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        text = TextColumn("{task.description}", markup=False)
        status = TextColumn("{task.fields[status]}", markup=False)
        self._bars = Bars(text, BarColumn(), status, console=console, transient=True)
        self._task = self._bars.add_task("", total=None, status="", visible=False)

    def __enter__(self) -> Progress:
        self._bars.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        self._bars.stop()

    def load(self, done: int, total: int) -> None:
        """Move the bar."""
        self._move("decoding images", done, total, f"{done}/{total}")

    def step(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        """Move the bar."""
        self._move(where, done, total, f"{speed:.0f} images/s, {_duration(left)} left")

    def copies(self, done: int, total: int, where: str, speed: float, left: float) -> None:
        """Move the bar."""
        self._move(where, done, total, f"{speed:.1f} images/s, {_duration(left)} left")

    def _move(self, text: str, done: int, total: int, status: str) -> None:
        self._bars.update(
            self._task, description=text, completed=done, total=total, status=status, visible=True
        )


def console_progress(console: Console | None = None) -> Progress:
    """Return a bar where the console (standard error by default) is a terminal, else lines."""
    console = console or Console(stderr=True)
    return Bar(console) if console.is_terminal else Lines(console)


def epoch_line(row: Mapping[str, float], epochs: int, best: bool, left: float) -> str:
    """Return an epoch's metrics as one line."""
    parts = [f"epoch {int(row['epoch'])}/{epochs}", f"loss {row['train_loss']:.3f}"]
    named = {"val_loss": "val loss", "val_accuracy": "accuracy"}
    named |= {"val_adversarial_accuracy": "under attack"}
    parts += [f"{name} {row[key]:.3f}" for key, name in named.items() if not math.isnan(row[key])]
    parts += [f"{row['images_per_second']:.0f} images/s", f"{row['seconds']:.1f} s"]
    if left > 0:
        parts.append(f"{_duration(left)} left")
    return ", ".join(parts) + (" (best)" if best else "")


def _duration(seconds: float) -> str:
    if not math.isfinite(seconds):
        return "?"
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
