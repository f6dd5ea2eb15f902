"""What is said of jobs: how many there are, in which state, and how long the rest takes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from diascope.studies.jobs import Job, Outcome
from diascope.studies.store import Store

_NOUNS = (("train", "trainings"), ("examine", "examinations"))


def plan_line(name: str, scale: str, jobs: Sequence[Job], store: Store) -> str:
    """Return a line that tells what is there, and what is still to be done."""
    parts = []
    for kind, noun in _NOUNS:
        there = [store.record(job) is not None for job in jobs if job.kind == kind]
        parts.append(f"{len(there) - sum(there)} {noun} to do, {sum(there)} there")
    return f"{name}, {scale}: {'; '.join(parts)}"


def status_lines(name: str, scale: str, jobs: Sequence[Job], store: Store) -> Iterator[str]:
    """Yield the state of each job, and about how long the rest takes."""
    yield plan_line(name, scale, jobs, store)
    left, known = [], []
    for job in jobs:
        record = store.record(job)
        if record is None:
            left.append(job)
            state = _state(job, store)
        else:
            known.append((job, float(record["seconds"])))
            state = f"there, {duration(float(record['seconds']))}"
        yield f"  {job.label}: {state}"
    clock = Clock(left)
    for job, seconds in known:
        clock.took(job, seconds)
    rest = clock.seconds()
    if not left:
        yield f"{name}, {scale}: all is there"
    elif rest is None:
        yield f"{name}, {scale}: {len(left)} jobs left; how long they take is not known yet"
    else:
        yield f"{name}, {scale}: {len(left)} jobs left, about {duration(rest)}"


def _state(job: Job, store: Store) -> str:
    """Return the state of a job that is not finished."""
    if store.at_work(job.key):
        return "running"
    if said := store.failure(job):
        return f"failed: {said}"
    return "begun" if store.begun(job) else "to do"


class Clock:
    """Tells how many jobs are done, and about how long the others take.

    seconds: what is expected of each job, by its key; where nothing is, it is that of jobs like it.
    """

    def __init__(self, jobs: Sequence[Job], seconds: Mapping[str, float] | None = None) -> None:
        self.left = {job.key: job for job in jobs}
        self.total = len(jobs)
        self._expected = seconds or {}
        self._took: dict[str, list[float]] = {}

    def took(self, job: Job, seconds: float) -> None:
        """Take in how long a job took."""
        for kind in _likes(job):
            self._took.setdefault(kind, []).append(seconds)

    def told(self, outcome: Outcome) -> str:
        """Return a line about a job that is settled."""
        self.left.pop(outcome.job.key, None)
        if outcome.state == "done":
            self.took(outcome.job, outcome.seconds)
        what = f"{outcome.state} in {duration(outcome.seconds)}"
        if outcome.state in ("failed", "left"):
            what = f"{outcome.state}: {outcome.reason}"
        place = f"[{self.total - len(self.left)}/{self.total}]"
        seconds = self.seconds()
        rest = f"; about {duration(seconds)} left" if seconds and self.left else ""
        return f"{place} {outcome.job.label}: {what}{rest}"

    def seconds(self) -> float | None:
        """Return about how long the jobs that are left take; None where that is not known."""
        total = 0.0
        for job in self.left.values():
            like = next((self._took[kind] for kind in _likes(job) if kind in self._took), None)
            if like is not None:
                total += sum(like) / len(like)
            elif job.key in self._expected:
                total += self._expected[job.key]
            else:
                return None
        return total


def _likes(job: Job) -> list[str]:
    """Return the kinds of a job, the closest first."""
    if job.kind == "examine":
        return [f"examine {job.content['measure']['name']}", "examine"]
    return [f"train {job.content['config']['objective']['name']}", "train"]


def duration(seconds: float) -> str:
    """Return seconds in words: 12 s, 3 min, 1.5 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
