"""A few processes of this machine that do jobs side by side, the threads divided among them."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from diascope.studies.jobs import Busy, Job, Outcome, Stopped

START = "spawn"  # how processes begin: a fork would take over torch's threads half-way
GRACE = 120.0  # seconds for workers that were told to stop to save their state
_LOOK = 0.5  # seconds between two looks of an idle worker
What = Literal["say", "settled", "busy", "stopped", "died"]


@dataclass(frozen=True)
class Told:
    """What is heard of a job: a line to say, its outcome, or that its worker died."""

    job: Job
    what: What
    outcome: Outcome | None = None
    text: str = ""


@dataclass
class _Worker:
    process: BaseProcess
    pipe: Connection
    job: Job | None = None


class Team:
    """So many worker processes, as a context; each begins when it is first needed."""

    def __init__(self, count: int, store: Path, data: Path | None, retries: int) -> None:
        self._context: BaseContext = multiprocessing.get_context(START)
        self._stop: Event = self._context.Event()
        self._work = (store, data, retries, threads_each(count))
        self._count = count
        self._workers: list[_Worker] = []

    def __enter__(self) -> Team:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        tb: TracebackType | None,
    ) -> None:
        """Have the workers save their state and end; those that do not are killed."""
        self._stop.set()
        until = time.monotonic() + GRACE
        for worker in self._workers:
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(max(0.1, until - time.monotonic()))
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()

    @property
    def room(self) -> bool:
        """Whether a job can be given out."""
        return self.at_work < self._count

    @property
    def at_work(self) -> int:
        """How many jobs are under way."""
        return sum(worker.job is not None for worker in self._workers)

    def give(self, job: Job) -> None:
        """Have a worker begin a job."""
        worker = next((w for w in self._workers if w.job is None), None) or self._begin()
        worker.job = job
        with contextlib.suppress(OSError):  # it has died since, which is heard of as of others
            worker.pipe.send(job)

    def stop(self) -> None:
        """Have the workers interrupt their jobs so that they can be resumed."""
        self._stop.set()

    def told(self, seconds: float) -> Iterator[Told]:
        """Yield what the workers tell within some seconds."""
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes), seconds):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                what, found = worker.pipe.recv()
            except (EOFError, OSError):
                yield from self._died(worker)
                continue
            job = worker.job
            assert job is not None
            if what == "say":
                yield Told(job, "say", text=found)
                continue
            worker.job = None
            yield Told(job, what, found if what == "settled" else None)

    def _begin(self) -> _Worker:
        mine, theirs = self._context.Pipe()
        process = self._context.Process(  # type: ignore[attr-defined]
            target=_serve, args=(theirs, self._stop, *self._work), daemon=True
        )
        process.start()
        theirs.close()
        worker = _Worker(process, mine)
        self._workers.append(worker)
        return worker

    def _died(self, worker: _Worker) -> Iterator[Told]:
        self._workers.remove(worker)
        worker.process.join(GRACE)
        worker.pipe.close()
        if worker.job is not None:
            yield Told(worker.job, "died", text=f"its process ended ({worker.process.exitcode})")


def threads_each(count: int) -> int:
    """Return how many threads each of so many processes has, of those that this one has."""
    if "torch" in sys.modules:
        mine = int(sys.modules["torch"].get_num_threads())
    else:
        mine = int(os.environ.get("OMP_NUM_THREADS") or len(os.sched_getaffinity(0)))
    return max(1, mine // count)


def _serve(
    pipe: Connection, halt: Event, store: Path, data: Path | None, retries: int, threads: int
) -> None:
    """Do jobs until the pipe is closed; a worker whose parent is gone stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent says when to stop
    os.environ["OMP_NUM_THREADS"] = str(threads)
    parent = os.getppid()
    import torch

    from diascope.hardware import keep_memory
    from diascope.studies.execute import attempt

    torch.set_num_threads(threads)
    keep_memory()

    def stop() -> bool:
        return halt.is_set() or os.getppid() != parent

    def say(text: str) -> None:
        with contextlib.suppress(OSError):
            pipe.send(("say", text))

    while True:
        try:
            while not pipe.poll(_LOOK):
                if stop():
                    return
            job: Job = pipe.recv()
        except (EOFError, OSError):
            return
        told: tuple[str, Any]
        try:
            told = "settled", attempt(job, store, data, say, stop, retries)
        except Busy:
            told = "busy", None
        except (Stopped, KeyboardInterrupt):
            told = "stopped", None
        try:
            pipe.send(told)
        except OSError:
            return
