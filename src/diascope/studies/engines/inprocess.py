"""Jobs one after the other in this process, or side by side in a few of this machine."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diascope.studies.engines import ENGINES
from diascope.studies.jobs import Busy, Job, Outcome, Stopped
from diascope.studies.queueing import Queue

POLL = 1.0  # seconds between two looks at a job that another process does
LATE = "not begun, or not finished: the time was over"


@ENGINES.register("inprocess")
@dataclass(frozen=True)
class InProcess:
    """Does jobs on this machine.

    workers: in how many processes; above one, the threads of this process are divided among them,
    which is faster for small nets. retries: how often a fault that may pass is tried again. A job
    that another process of the same store does is waited for at the end.
    """

    workers: int = 1
    retries: int = 1

    def __post_init__(self) -> None:
        if self.workers < 1 or self.retries < 0:
            raise ValueError("workers must be at least 1, and retries at least 0")

    def run(
        self,
        jobs: Sequence[Job],
        store: Path,
        data: Path | None,
        stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> Iterator[Outcome]:
        """Do the jobs; see `Engine`."""
        queue = Queue(jobs)
        do = self._here if self.workers == 1 or len(jobs) < 2 else self._beside
        yield from do(queue, store, data, stop, say)
        yield from queue.leave(LATE)

    def _here(
        self,
        queue: Queue,
        store: Path,
        data: Path | None,
        stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> Iterator[Outcome]:
        from diascope.studies.execute import attempt

        while not stop() and (job := queue.next()) is not None:
            try:
                outcome = attempt(job, store, data, say, stop, self.retries)
            except Stopped:
                return
            except Busy:
                self._rest(queue, job, say)
                continue
            yield from queue.settle(outcome)

    def _beside(
        self,
        queue: Queue,
        store: Path,
        data: Path | None,
        stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> Iterator[Outcome]:
        from diascope.studies.workers import Team

        died = Counter[str]()
        with Team(self.workers, store, data, self.retries) as team:
            while True:
                late = stop()
                if late:
                    team.stop()
                while not late and team.room and (job := queue.next()) is not None:
                    team.give(job)
                if not team.at_work:
                    return
                for told in team.told(POLL):
                    if told.what == "say":
                        say(told.text)
                    elif told.what == "busy":
                        self._rest(queue, told.job, say)
                    elif told.outcome is not None:
                        yield from queue.settle(told.outcome)
                    elif told.what == "died":
                        died[told.job.key] += 1
                        if died[told.job.key] <= self.retries:
                            say(f"{told.job.label}: {told.text}; once more")
                            queue.postpone(told.job)
                            continue
                        self._lost(told.job, store, told.text)
                        yield from queue.settle(Outcome(told.job, "failed", 0.0, told.text))

    def _rest(self, queue: Queue, job: Job, say: Callable[[str], None]) -> None:
        """Take back a job that another process does; wait where there is nothing else to do."""
        first = not queue.postponed(job)
        if queue.postpone(job):
            if first:
                say(f"{job.label}: another process is at work on it; waiting")
            time.sleep(POLL)

    def _lost(self, job: Job, store: Path, reason: str) -> None:
        from diascope.studies.store import Store

        Store(store).fail(job, reason)
