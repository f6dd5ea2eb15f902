"""A study from end to end: its plan, its jobs, its claims decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diascope.studies.engines import ENGINES, Engine
from diascope.studies.jobs import Job, Outcome
from diascope.studies.planning import Plan, joined, plan_study
from diascope.studies.results import JobResult, StudyResults
from diascope.studies.store import Store
from diascope.studies.study import Study

Say = Callable[[str], None]


@dataclass
class Done:
    """What became of jobs by key, and whether the work was interrupted."""

    outcomes: dict[str, Outcome] = field(default_factory=dict)
    interrupted: bool = False


def _nobody(line: str) -> None:
    pass


def run_study(
    study: Study,
    file: Path,
    store: Path,
    data: Path | None = None,
    engine: Engine | str | Mapping[str, Any] = "inprocess",
    *,
    only: Sequence[str] = (),
    max_hours: float | None = None,
    say: Say = _nobody,
) -> StudyResults:
    """Train and examine what is missing of a study, and decide its claims.

    file: the study's, to which configurations are relative. store: the folder of all results;
    data: that of all data, which "{data}" names. only: see `plan_study`. After `max_hours` no job
    is begun, and those under way are interrupted so that they can be resumed. `say` hears the
    plan, and how far it is. Raises `UserError` for mistakes in the study, before anything is
    trained; a job that fails is told in the results.
    """
    plan = plan_study(study, file, only)
    for line in plan_lines([plan], Store(store)):
        say(line)
    done = carry_out([plan], store, data, engine, max_hours=max_hours, say=say)
    return collect(plan, Store(store), done)


def carry_out(
    plans: Sequence[Plan],
    store: Path,
    data: Path | None = None,
    engine: Engine | str | Mapping[str, Any] = "inprocess",
    *,
    max_hours: float | None = None,
    say: Say = _nobody,
) -> Done:
    """Do the jobs of all plans, each once; an interrupt ends the work and is told in the result."""
    jobs, place, done = joined(plans), Store(store), Done()
    engine = ENGINES.build(engine, "--engine") if isinstance(engine, str | Mapping) else engine
    deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
    pending = [job for job in jobs if place.record(job) is None]
    clock = _Clock(pending)

    def stop() -> bool:
        return deadline is not None and time.monotonic() >= deadline

    for job in jobs:
        if job not in pending:
            done.outcomes[job.key] = Outcome(job, "there", _seconds(place, job))
    try:
        for outcome in engine.run(pending, store, data, stop, say):
            done.outcomes[outcome.job.key] = outcome
            say(clock.told(outcome))
    except KeyboardInterrupt:
        done.interrupted = True
    for job in jobs:
        done.outcomes.setdefault(job.key, Outcome(job, "left", 0.0, "interrupted"))
    return done


def plan_lines(plans: Sequence[Plan], store: Store) -> list[str]:
    """Return the lines that tell what is there, and what is still to be done."""
    lines, seen = [], set[str]()
    for plan in plans:
        fresh = [job for job in plan.jobs if job.key not in seen]
        seen |= {job.key for job in plan.jobs}
        parts = []
        for kind, noun in (("train", "trainings"), ("examine", "examinations")):
            of_kind = [job for job in fresh if job.kind == kind]
            there = sum(store.record(job) is not None for job in of_kind)
            parts.append(f"{len(of_kind) - there} {noun} to do, {there} there")
        lines.append(f"{plan.study.name}, {plan.study.scale}: {'; '.join(parts)}")
    return lines


def collect(
    plan: Plan, store: Store, done: Done | None = None, regenerate: str = ""
) -> StudyResults:
    """Return the results of a study as far as its store has them, claims decided."""
    study, outcomes = plan.study, (done or Done()).outcomes
    jobs = [_job_result(job, store, outcomes.get(job.key)) for job in plan.jobs]
    there = {job.key for job in jobs if job.state in ("done", "there")}
    tables = {
        evaluation: {
            run: {str(seed): key for seed, key in keys.items() if key in there}
            for run, keys in by_run.items()
        }
        for evaluation, by_run in plan.tables.items()
    }
    about, masking = (
        {
            evaluation: {
                run: {seed: store.examined(key)[part] for seed, key in keys.items()}
                for run, keys in by_run.items()
            }
            for evaluation, by_run in tables.items()
        }
        for part in ("about", "masking")
    )
    return StudyResults(
        name=study.name,
        title=study.title,
        source=study.source,
        scale=study.scale,
        study=study.model_dump(mode="json"),
        claims=[],
        jobs=jobs,
        tables=tables,
        about=about,
        masking=masking,
        regenerate=regenerate or f"diascope study run {plan.file} --scale {study.scale}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=sum(job.seconds for job in jobs if job.key in there),
        hardware=sorted({_named(job.hardware) for job in jobs if job.hardware}),
        complete=len(there) == len(jobs),
    )


def _job_result(job: Job, store: Store, outcome: Outcome | None) -> JobResult:
    record = store.record(job)
    if record is not None:
        state: str = "done" if outcome and outcome.state == "done" else "there"
        seconds, machine = float(record["seconds"]), dict(record["hardware"])
        return JobResult(job.key, job.label, job.kind, state, seconds, "", machine)
    state, reason = ("left", "") if outcome is None else (outcome.state, outcome.reason)
    reason = reason or store.failure(job)
    return JobResult(job.key, job.label, job.kind, state, 0.0, reason)


def _seconds(store: Store, job: Job) -> float:
    record = store.record(job)
    return 0.0 if record is None else float(record["seconds"])


def _named(machine: Mapping[str, Any]) -> str:
    """Return what is said of a machine: its GPUs, else its CPU and threads."""
    if machine.get("gpus"):
        return ", ".join(machine["gpus"])
    return f"{machine.get('cpu', 'unknown')}, {machine.get('threads', '?')} threads"


class _Clock:
    """Tells how many jobs are done, and about how long the others take, by those like them."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.left = {job.key: job for job in jobs}
        self.total = len(jobs)
        self._took: dict[str, list[float]] = {}

    def told(self, outcome: Outcome) -> str:
        """Return a line about a job that is settled."""
        self.left.pop(outcome.job.key, None)
        if outcome.state == "done":
            for kind in _likes(outcome.job):
                self._took.setdefault(kind, []).append(outcome.seconds)
        what = f"{outcome.state} in {duration(outcome.seconds)}"
        if outcome.state in ("failed", "left"):
            what = f"{outcome.state}: {outcome.reason}"
        place = f"[{self.total - len(self.left)}/{self.total}]"
        seconds = self._seconds()
        rest = f"; about {duration(seconds)} left" if seconds and self.left else ""
        return f"{place} {outcome.job.label}: {what}{rest}"

    def _seconds(self) -> float:
        """Return about how long the jobs that are left take; 0 where nothing is known of some."""
        total = 0.0
        for job in self.left.values():
            like = next((self._took[kind] for kind in _likes(job) if kind in self._took), None)
            if like is None:
                return 0.0
            total += sum(like) / len(like)
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
