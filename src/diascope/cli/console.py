"""What the command line says: plain lines, and progress that suits where it is shown."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def say(text: str = "") -> None:
    """Write one line to the standard error, where every message goes."""
    print(" ".join(text.split("\n")), file=sys.stderr, flush=True)


@contextmanager
def progress(seconds: float = 15.0) -> Iterator[Callable[[str, int, int], None]]:
    """Yield `update(task, done, total)`: bars on a terminal, a line now and then elsewhere."""
    if sys.stderr.isatty():
        with _bars() as update:
            yield update
    else:
        yield _lines(seconds)


@contextmanager
def _bars() -> Iterator[Callable[[str, int, int], None]]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TaskID,
        TextColumn,
        TimeRemainingColumn,
    )

    tasks: dict[str, TaskID] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:

        def update(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bars.add_task(task, total=total)
            bars.update(tasks[task], completed=done, total=total)

        yield update


def _lines(seconds: float) -> Callable[[str, int, int], None]:
    began: dict[str, float] = {}
    said: dict[str, float] = {}

    def update(task: str, done: int, total: int) -> None:
        now = time.monotonic()
        began.setdefault(task, now)
        if done < total and now - said.get(task, began[task]) < seconds:
            return
        said[task] = now
        spent = now - began[task]
        left = f", about {spent * (total - done) / done:.0f} s left" if 0 < done < total else ""
        say(f"{task}: {done}/{total} in {spent:.0f} s{left}")

    return update
