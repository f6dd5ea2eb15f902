"""Jobs one after the other in this process, or in a few processes of this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diascope.studies.engines import ENGINES
from diascope.studies.jobs import Busy, Job, Outcome, Stopped
from diascope.studies.queueing import Queue

_POLL = 1.0  # seconds between two looks at a job that another process does


@ENGINES.register("inprocess")
@dataclass(frozen=True)
class InProcess:
    """Does jobs here. retries: how often a fault that may pass is tried again."""

    retries: int = 1

    def run(
        self,
        jobs: Sequence[Job],
        store: Path,
        data: Path | None,
        stop: Callable[[], bool],
        say: Callable[[str], None],
    ) -> Iterator[Outcome]:
        """Do the jobs; a job that another process of the store does is waited for at the end."""
        from diascope.studies.execute import attempt

        queue, waited = Queue(jobs), False
        while (job := queue.next()) is not None:
            if stop():
                break
            try:
                outcome = attempt(job, store, data, say, stop, self.retries)
            except Stopped:
                break
            except Busy:
                if not queue.postpone(job):
                    continue
                if not waited:
                    say(f"{job.label}: another process is at work on it; waiting")
                waited = True
                time.sleep(_POLL)
                continue
            waited = False
            yield from queue.settle(outcome)
        yield from queue.leave("not begun: the time was over")
