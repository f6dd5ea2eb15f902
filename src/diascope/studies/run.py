"""A study from end to end: its plan, its jobs, its claims decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from diascope.studies.cost import cost_line, plan_cost, unknown_lines
from diascope.studies.decide import decide_study
from diascope.studies.engines import ENGINES, Engine
from diascope.studies.jobs import Job, Outcome
from diascope.studies.planning import Plan, joined, plan_study
from diascope.studies.results import JobResult, StudyResults
from diascope.studies.store import Store
from diascope.studies.study import Study
from diascope.studies.telling import Clock, plan_line

Say = Callable[[str], None]
T = TypeVar("T")
U = TypeVar("U")
BySeed = dict[str, dict[str, dict[int, T]]]  # evaluation -> run -> seed


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
    say(plan_line(study.name, study.scale, plan.jobs, Store(store)))
    for line in prepared(plan.jobs, plan.every, Store(store), data):
        say(line)
    expected = expectation(plan.jobs, store, data, say)
    done = carry_out([plan], store, data, engine, max_hours=max_hours, expected=expected, say=say)
    return collect(plan, Store(store), done)


def prepared(
    jobs: Sequence[Job], every: Sequence[Job], store: Store, data: Path | None
) -> list[str]:
    """Raise `UserError` where jobs cannot be done, or do not fit what is finished of `every`.

    Returns a line for each that could not be compared.
    """
    from diascope.studies.beforehand import check_jobs
    from diascope.studies.unchanged import check_unchanged

    check_jobs(jobs, store, data)
    return check_unchanged(every, store, data)


def expectation(
    jobs: Sequence[Job], store: Path, data: Path | None, say: Say = _nobody
) -> dict[str, float]:
    """Say what is still to be spent; return the seconds of each job for which they are known.

    Of what was never done on such a machine a few steps are timed.
    """
    if all(Store(store).record(job) is not None for job in jobs):
        return {}
    try:
        cost = plan_cost(jobs, store, data)
    except Exception as error:  # of a model that is timed: its own job will tell of it
        say(f"what it takes is not known: {' '.join(f'{type(error).__name__}: {error}'.split())}")
        return {}
    say(cost_line(cost))
    for line in unknown_lines(cost):
        say(line)
    return {each.job.key: each.left for each in cost.jobs if each.left is not None}


def carry_out(
    plans: Sequence[Plan],
    store: Path,
    data: Path | None = None,
    engine: Engine | str | Mapping[str, Any] = "inprocess",
    *,
    max_hours: float | None = None,
    expected: Mapping[str, float] | None = None,
    say: Say = _nobody,
) -> Done:
    """Do the jobs of all plans, each once; an interrupt ends the work and is told in the result.

    expected: the seconds that a job is thought to take, by its key.
    """
    jobs, place, done = joined(plans), Store(store), Done()
    engine = ENGINES.build(engine, "--engine") if isinstance(engine, str | Mapping) else engine
    deadline = None if max_hours is None else time.monotonic() + 3600 * max_hours
    pending = [job for job in jobs if place.record(job) is None]
    clock = Clock(pending, expected)

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


def collect(
    plan: Plan, store: Store, done: Done | None = None, regenerate: str = ""
) -> StudyResults:
    """Return the results of a study as far as its store has them, claims decided.

    regenerate: the command that makes them anew. Raises `UserError` where finished jobs are of
    different images under one name.
    """
    from diascope.studies.unchanged import check_unchanged

    study, outcomes = plan.study, (done or Done()).outcomes
    jobs = [_job_result(job, store, outcomes.get(job.key)) for job in plan.every]
    check_unchanged(plan.every, store, None, at_hand=False)
    there = {job.key for job in jobs if job.state in ("done", "there")}
    keys = {
        evaluation: {
            run: {seed: key for seed, key in by_seed.items() if key in there}
            for run, by_seed in by_run.items()
        }
        for evaluation, by_run in plan.tables.items()
    }
    records = _each(keys, store.examined)
    masking = _each(records, lambda record: record["masking"])
    claims = decide_study(study, _each(keys, store.table), masking)
    return StudyResults(
        name=study.name,
        title=study.title,
        source=study.source,
        scale=study.scale,
        study=study.model_dump(mode="json"),
        claims=claims,
        jobs=jobs,
        tables=_by_word(keys),
        about=_by_word(_each(records, lambda record: record["about"])),
        masking=_by_word(masking),
        regenerate=regenerate or f"diascope study run {plan.file} --scale {study.scale}",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=sum(job.seconds for job in jobs if job.key in there),
        hardware=sorted({_named(job.hardware) for job in jobs if job.hardware}),
        complete=len(there) == len(jobs),
    )


def _each(of: BySeed[T], work: Callable[[T], U]) -> BySeed[U]:
    """Return what `work` makes of each entry."""
    return {
        evaluation: {
            run: {seed: work(found) for seed, found in by_seed.items()}
            for run, by_seed in by_run.items()
        }
        for evaluation, by_run in of.items()
    }


def _by_word(of: BySeed[T]) -> dict[str, dict[str, dict[str, T]]]:
    """Return the same with seeds as JSON has them."""
    return {
        evaluation: {
            run: {str(seed): found for seed, found in by_seed.items()}
            for run, by_seed in by_run.items()
        }
        for evaluation, by_run in of.items()
    }


def _job_result(job: Job, store: Store, outcome: Outcome | None) -> JobResult:
    record = store.record(job)
    if record is not None:
        state: str = "done" if outcome and outcome.state == "done" else "there"
        seconds, machine = float(record["seconds"]), dict(record["hardware"])
        about = record.get("about") or {}
        doubts = [*record.get("doubts", ()), *about.get("doubts", ())]
        return JobResult(
            job.key, job.label, job.kind, state, seconds, "", machine,
            doubts=list(dict.fromkeys(doubts)),
            images=record.get("images"),
            left_out=record.get("left_out") or {},
            version=_version(record),
        )  # fmt: skip
    if outcome is not None:
        return JobResult(job.key, job.label, job.kind, outcome.state, 0.0, outcome.reason)
    said = store.failure(job)
    return JobResult(job.key, job.label, job.kind, "failed" if said else "left", 0.0, said)


def _version(record: Mapping[str, Any]) -> str:
    """Return which Diascope did a job, such as "0.9.0 (0123abc)"; "" where that is not known."""
    commit = record.get("commit")
    short = "" if commit is None else f" ({commit[:7]}{commit[40:]})"
    return f"{record.get('diascope', '')}{short}"


def _seconds(store: Store, job: Job) -> float:
    record = store.record(job)
    return 0.0 if record is None else float(record["seconds"])


def _named(machine: Mapping[str, Any]) -> str:
    """Return what is said of a machine: its GPUs, else its CPU and threads."""
    if machine.get("gpus"):
        return ", ".join(machine["gpus"])
    return f"{machine.get('cpu', 'unknown')}, {machine.get('threads', '?')} threads"
