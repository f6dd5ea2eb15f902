"""Which job comes next: each after those that it needs, and none whose needs have failed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from diascope.studies.jobs import Job, Outcome


class Queue:
    """The jobs of an engine that are not settled, in the order in which they are to be done."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._left = {job.key: job for job in jobs}
        self._out: dict[str, Job] = {}  # given to a worker
        self._busy: list[str] = []  # postponed since the last one was settled

    def next(self) -> Job | None:
        """Return a job whose needs are settled, and that is not given out; None where none is."""
        for key in sorted(self._left, key=self._busy.count):
            job = self._left[key]
            if not any(need in self._left or need in self._out for need in job.needs):
                self._out[key] = self._left.pop(key)
                return job
        return None

    def postponed(self, job: Job) -> bool:
        """Return whether a job was postponed since the last one was settled."""
        return job.key in self._busy

    def postpone(self, job: Job) -> bool:
        """Take a job back; return whether all that could be done have been postponed."""
        self._left[job.key] = self._out.pop(job.key)
        self._busy.append(job.key)
        ready = [
            key
            for key, each in self._left.items()
            if not any(need in self._left or need in self._out for need in each.needs)
        ]
        return all(key in self._busy for key in ready)

    def settle(self, outcome: Outcome) -> Iterator[Outcome]:
        """Yield the outcome of a job, and those of the jobs that are left because it failed."""
        self._out.pop(outcome.job.key, None)
        self._busy.clear()
        yield outcome
        if outcome.state in ("failed", "left"):
            for job in [job for job in self._left.values() if outcome.job.key in job.needs]:
                del self._left[job.key]
                reason = f"needs '{outcome.job.label}', which {_WORDS[outcome.state]}"
                yield from self.settle(Outcome(job, "left", 0.0, reason))

    def leave(self, reason: str) -> Iterator[Outcome]:
        """Yield all jobs that are not settled as left."""
        for job in [*self._out.values(), *self._left.values()]:
            yield Outcome(job, "left", 0.0, reason)
        self._left, self._out = {}, {}


_WORDS = {"failed": "failed", "left": "was not done"}
