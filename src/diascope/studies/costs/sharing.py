"""Many jobs on many workers: which is begun when, and how long it all takes."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from diascope.studies.costs.devices import Room
from diascope.studies.costs.speed import Speed
from diascope.studies.costs.stages import Stage


@dataclass(frozen=True)
class Task:
    """One job: stages, one after the other, and `passes` of an examination, after those it needs.

    speeds: of each stage on one device. seconds: what is the same however many devices share the
    job, on one of them.
    """

    name: str
    stages: tuple[Stage, ...] = ()
    speeds: tuple[Speed, ...] = ()
    seconds: float = 0.0
    needs: tuple[str, ...] = ()

    def on(self, gpus: int, room: Room) -> float:
        """Return the seconds on `gpus` that share the job; an examination is not shared."""
        pairs = zip(self.stages, self.speeds, strict=True)
        return self.seconds + sum(room.seconds(stage, speed, gpus) for stage, speed in pairs)


@dataclass(frozen=True)
class Way:
    """One way to use `gpus`: `beside` jobs at a time, each on `each` of them, in `seconds`.

    path: seconds of the longest chain of jobs that wait for one another, below which no number of
    workers can go.
    """

    gpus: int
    each: int
    seconds: float
    path: float

    @property
    def beside(self) -> int:
        """How many jobs are done at a time."""
        return self.gpus // self.each


def ways(tasks: Sequence[Task], gpus: int, room: Room) -> list[Way]:
    """Return every way to divide `gpus` evenly among jobs, from one each to all for one."""
    found = []
    for each in (n for n in range(1, gpus + 1) if gpus % n == 0):
        lengths = {task.name: task.on(each, room) for task in tasks}
        needs = {task.name: task.needs for task in tasks}
        seconds = scheduled(lengths, needs, gpus // each)
        found.append(Way(gpus, each, seconds, max(_tails(lengths, needs).values(), default=0.0)))
    return found


def scheduled(
    lengths: Mapping[str, float], needs: Mapping[str, Sequence[str]], workers: int
) -> float:
    """Return the time at which all is done by list scheduling (Graham 1969).

    A worker that is free takes, of the jobs whose needs are met, the one with the longest chain
    of jobs behind it.
    """
    tails = _tails(lengths, needs)
    waiting = {name: set(needs[name]) & set(lengths) for name in lengths}
    ready = [(-tails[name], name) for name in lengths if not waiting[name]]
    heapq.heapify(ready)
    running: list[tuple[float, str]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < workers:
            name = heapq.heappop(ready)[1]
            heapq.heappush(running, (now + lengths[name], name))
        now, done = heapq.heappop(running)
        for name, before in waiting.items():
            if done in before:
                before.remove(done)
                if not before:
                    heapq.heappush(ready, (-tails[name], name))
    return now


def _tails(lengths: Mapping[str, float], needs: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Return for each job its own length and that of the longest chain that waits for it."""
    after: dict[str, list[str]] = {name: [] for name in lengths}
    for name in lengths:
        for need in needs[name]:
            if need in after:
                after[need].append(name)
    tails: dict[str, float] = {}

    def tail(name: str) -> float:
        if name not in tails:
            tails[name] = lengths[name] + max((tail(other) for other in after[name]), default=0.0)
        return tails[name]

    for name in lengths:
        tail(name)
    return tails
