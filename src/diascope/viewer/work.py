"""One piece of work at a time: a queue, progress, a deadline, and an end when nobody waits."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diascope.errors import UserError
from diascope.viewer.limits import Refused

Event = dict[str, Any]
FINAL = ("done", "error", "stopped")
_here = threading.local()


class Stopped(BaseException):
    """The work is not wanted any more; no handler of ordinary errors holds it up."""


@dataclass(eq=False)
class Job:
    """A piece of work of one page, and the way its events take.

    page: which page asked; kind: what for; about: the id of the image. task: what is done, called
    with the job. tell: takes every event; the last has a `state` of `FINAL`.
    """

    page: str
    kind: str
    about: str
    task: Callable[[Job], None]
    tell: Callable[[Event], None]
    timeout: float
    reason: str = ""
    deadline: float = field(default=float("inf"), init=False)
    _told: float = field(default=0.0, init=False)

    def cancel(self, reason: str) -> None:
        """Ask the work to end; the first reason stays."""
        self.reason = self.reason or reason

    def check(self) -> None:
        """Raise `Stopped` where the work is to end, or has had its time."""
        if time.monotonic() > self.deadline:
            self.cancel("timeout")
        if self.reason:
            raise Stopped

    def progress(self, done: float, total: float) -> None:
        """Tell how much is done, now and then."""
        self.check()
        now = time.monotonic()
        if now - self._told > 0.1:
            self._told = now
            self.tell({"done": round(done / max(total, 1), 3)})

    def run(self) -> None:
        """Do the work, and tell how it ended."""
        self.deadline = time.monotonic() + self.timeout
        _here.job = self
        try:
            self.check()
            self.tell({"state": "running"})
            self.task(self)
            self.tell({"state": "done"})
        except Stopped:
            self.tell(self._end())
        except (UserError, Refused) as error:
            self.tell({"state": "error", "error": str(error)})
        except MemoryError:
            self.tell({"state": "error", "error": "This takes more memory than there is."})
        except Exception as error:
            self.tell({"state": "error", "error": f"This failed ({note(error)})."})
        finally:
            _here.job = None

    def _end(self) -> Event:
        if self.reason == "timeout":
            late = f"This took longer than {self.timeout:.0f} seconds and was given up."
            return {"state": "error", "error": late}
        return {"state": "stopped", "reason": self.reason}


def heed(*_: object) -> None:
    """End the work under way where it is not wanted; the hook of every forward pass."""
    job: Job | None = getattr(_here, "job", None)
    if job is not None:
        job.check()


def note(error: BaseException) -> str:
    """Return the kind of an error, and print it with its place; never what it says.

    What an error says may hold a piece of a file.
    """
    place, kind = error.__traceback__, type(error).__name__
    while place is not None and place.tb_next is not None:
        place = place.tb_next
    where = f" in {Path(place.tb_frame.f_code.co_filename).name}:{place.tb_lineno}" if place else ""
    with contextlib.suppress(OSError, ValueError):
        print(f"viewer: {kind}{where}", file=sys.stderr, flush=True)
    return kind


class Desk:
    """Does the jobs in one thread, in their order.

    A newer job of a page ends the older ones of the same kind, and all that are about another
    image.
    """

    def __init__(self, waiting: int) -> None:
        self.limit = waiting
        self._waiting: deque[Job] = deque()
        self._now: Job | None = None
        self._change = threading.Condition()
        self._closed = False
        self.thread = threading.Thread(target=self._work, name="viewer", daemon=True)
        self.thread.start()

    def submit(self, job: Job) -> int:
        """Take a job and return how many come before it; raises `Refused` where too many wait."""
        with self._change:
            old = [*self._waiting, *([self._now] if self._now else [])]
            for each in old:
                if each.page == job.page and (each.kind == job.kind or each.about != job.about):
                    each.cancel("superseded")
            self._sweep()
            if self._closed or len(self._waiting) >= self.limit:
                raise Refused(429, "Too much is waiting to be computed: try again in a moment.")
            self._waiting.append(job)
            self._change.notify()
            return len(self._waiting) - 1 + (self._now is not None)

    def drop(self, job: Job, reason: str = "left") -> None:
        """End a job, whether it waits or is under way."""
        job.cancel(reason)
        with self._change:
            self._sweep()

    def close(self, seconds: float = 5.0) -> bool:
        """End everything; return whether the thread has ended."""
        with self._change:
            self._closed = True
            for job in [*self._waiting, *([self._now] if self._now else [])]:
                job.cancel("closed")
            self._sweep()
            self._change.notify()
        self.thread.join(seconds)
        return not self.thread.is_alive()

    def _sweep(self) -> None:
        """Let go of jobs that wait in vain; what they would have done is said."""
        for job in [job for job in self._waiting if job.reason]:
            self._waiting.remove(job)
            job.tell({"state": "stopped", "reason": job.reason})

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._closed or bool(self._waiting))
                if self._closed:
                    return
                self._now = self._waiting.popleft()
            try:
                self._now.run()
            except Exception as error:  # the next page's work must not suffer for it
                note(error)
            with self._change:
                self._now = None
