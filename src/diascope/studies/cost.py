"""What a plan costs on this machine, and on 1, 8 and 64 GPUs that are not here."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from diascope.data import open_data
from diascope.errors import UserError
from diascope.settings import validate
from diascope.studies.costs.devices import Room
from diascope.studies.costs.probe import known, probed
from diascope.studies.costs.records import examined, measure_kind, recorded
from diascope.studies.costs.sharing import Task, ways
from diascope.studies.costs.speed import Speed
from diascope.studies.costs.stages import Stage, stages_of
from diascope.studies.costs.telling import hours, table_lines
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.jobs import Job
from diascope.studies.planning import expanded
from diascope.studies.store import Store
from diascope.studies.study import TestSpec
from diascope.training.config import DataConfig, TrainConfig, read_config
from diascope.training.fit import settled
from diascope.training.layers import merge

PATIENCE = 90.0  # seconds of timing after which kinds that are left stay unknown for now


@dataclass(frozen=True)
class JobCost:
    """The seconds that a job takes from nothing on this machine; None where that is not known.

    left: what is still to be spent on it, 0 where it is done. source: how it is known, or why not.
    """

    job: Job
    seconds: float | None
    left: float | None
    source: str


@dataclass(frozen=True)
class PlanCost:
    """The costs of a plan's jobs."""

    jobs: tuple[JobCost, ...]

    @property
    def left(self) -> float:
        """The seconds that are still to be spent, of all jobs whose cost is known."""
        return sum(cost.left or 0.0 for cost in self.jobs)

    @property
    def unknown(self) -> list[JobCost]:
        """The jobs that are to be done and whose cost is not known."""
        return [cost for cost in self.jobs if cost.left is None]


def plan_cost(
    jobs: Sequence[Job], store: Path, data: Path | None = None, probe: bool = True
) -> PlanCost:
    """Return what jobs cost on this machine.

    A job that is done costs what its record says. Else the speed is that of the store's trainings
    and examinations of the same kind (model, size, objective, batch), done on such a machine; else,
    with `probe`, of a few steps that are timed here, some seconds a kind, and kept in the store;
    of many kinds those that take too long in all are left for the next time.
    Where training may stop early, the cost is the most it can be.
    """
    survey = _Survey(jobs, store, data)
    here = _Here(store, probe)
    return PlanCost(tuple(_job_cost(job, survey, here, Store(store)) for job in jobs))


def cost_table(
    jobs: Sequence[Job],
    store: Path,
    data: Path | None,
    gpus: Sequence[int] = (1, 8, 64),
    room: Room | None = None,
) -> list[str]:
    """Return the lines of a table of hours on several numbers of GPUs, and what was assumed.

    All jobs are counted, done or not. The speed of a GPU is derived from the operations of each
    model and from what `room` assumes.
    """
    room = room or Room()
    survey = _Survey(jobs, store, data)
    tasks, unknown = [], []
    for job in jobs:
        try:
            tasks.append(survey.task(job, room))
        except UserError as error:
            unknown.append(f"{job.label}: not counted: {error}")
    return [*table_lines([ways(tasks, n, room) for n in gpus]), *room.lines(), *unknown]


def cost_line(cost: PlanCost) -> str:
    """Return in words what is still to be spent."""
    missing = f", and {len(cost.unknown)} jobs whose cost is not known" if cost.unknown else ""
    return f"about {hours(cost.left)} on this machine{missing}"


def unknown_lines(cost: PlanCost) -> list[str]:
    """Return a line for each reason why the cost of jobs is not known."""
    reasons = Counter(each.source for each in cost.unknown)
    return [f"{number} jobs: cost not known: {why}" for why, number in reasons.items()]


def _job_cost(job: Job, survey: _Survey, here: _Here, store: Store) -> JobCost:
    if (record := store.record(job)) is not None:
        return JobCost(job, float(record["seconds"]), 0.0, "done")
    try:
        seconds, source = here.job(job, survey)
    except UserError as error:
        return JobCost(job, None, None, str(error))
    return JobCost(job, seconds, seconds, source)


class _Survey:
    """Says how much work there is in each of the jobs."""

    def __init__(self, jobs: Sequence[Job], store: Path, data: Path | None) -> None:
        self.jobs, self.store, self.data = {job.key: job for job in jobs}, store, data

    def config(self, key: str) -> TrainConfig:
        """Return the configuration of a training."""
        job = self.jobs[key]
        content = expanded(merge(job.content["config"], job.free), self.store, self.data)
        return read_config(content, where=job.label)

    def stages(self, key: str) -> list[Stage]:
        """Return the stages of a training."""
        config = self.config(key)
        parts, classes = _counts(config.data.model_dump_json())
        return stages_of(config, parts["train"], parts["val"], classes)

    def passes(self, job: Job) -> float:
        """Return the forward passes of an examination."""
        test = validate(TestSpec, job.content["test"], job.label)
        config = self.config(job.content["run"])
        parts, classes = _counts(config.data.model_dump_json())
        if test.data is None:
            images = parts[test.part]
        else:
            options = expanded(dict(test.options), self.store, self.data)
            name = expanded(test.data, self.store, self.data)
            elsewhere = DataConfig(name=name, options=options, size=config.data.size)
            images = _rows(elsewhere.model_dump_json(), test.part)
        images = min(images, test.images or images)
        evaluation = EVALUATIONS.build(job.content["measure"], job.label)
        return float(evaluation.passes(images, classes, len(job.content["beside"])))

    def task(self, job: Job, room: Room) -> Task:
        """Return a job as GPUs of a room do it."""
        needs = tuple(need for need in job.needs if need in self.jobs)
        if job.kind == "train":
            stages = self.stages(job.key)
            speeds = tuple(room.speed(stage) for stage in stages)
            return Task(job.key, tuple(stages), speeds, 0.0, needs)
        model = self.stages(job.content["run"])[-1]
        seconds = self.passes(job) * room.speed(model).forward
        return Task(job.key, (), (), seconds, needs)


@dataclass
class _Here:
    """Says how fast this machine is."""

    store: Path
    probe: bool
    _trainings: dict[str, Speed] | None = None
    _measures: dict[str, float] | None = None
    _probed: dict[str, Speed] = field(default_factory=dict)
    _spent: float = 0.0

    def job(self, job: Job, survey: _Survey) -> tuple[float, str]:
        """Return the seconds of a job and how they are known; raises `UserError` if they are not.

        Raises it for data that are not here, too.
        """
        if job.kind == "train":
            parts = [(stage, self.speed(stage)) for stage in survey.stages(job.key)]
            seconds = sum(speed.stage(stage) for stage, speed in parts)
            return seconds, parts[-1][1].source
        passes = survey.passes(job)
        kind = measure_kind(
            job.content["measure"], survey.jobs[job.content["run"]].content["config"]
        )
        if self._measures is None:
            self._measures = examined(self.store)
        if kind in self._measures:
            return passes * self._measures[kind], "examinations of the store"
        speed = self.speed(survey.stages(job.content["run"])[-1])
        return passes * speed.forward, speed.source

    def speed(self, stage: Stage) -> Speed:
        """Return the speed of a stage on this machine."""
        training = settled(stage.config.training, stage.objective)
        stage = replace(stage, config=stage.config.model_copy(update={"training": training}))
        if self._trainings is None:
            self._trainings = recorded(self.store)
        if stage.kind in self._trainings:
            return self._trainings[stage.kind]
        if stage.kind not in self._probed:
            if not self.probe:
                raise UserError("nothing of its kind was done here before")
            if not known(stage, self.store) and self._spent > PATIENCE:
                raise UserError("not timed yet: the plan has many kinds; ask for it once more")
            self._probed[stage.kind] = self._timed(stage)
        return self._probed[stage.kind]

    def _timed(self, stage: Stage) -> Speed:
        fresh, began = not known(stage, self.store), time.perf_counter()
        speed = probed(stage, self.store)
        self._spent += time.perf_counter() - began if fresh else 0.0
        return speed


@lru_cache(maxsize=64)
def _counts(data: str) -> tuple[dict[str, int], int]:
    """Return the images of each part of a training's data, and of "all"; and its classes."""
    config = DataConfig.model_validate_json(data)
    dataset = open_data(config.name, config.classes, **config.options)
    splits = config.split.of(dataset)
    parts: dict[str, Any] = {name: len(getattr(splits, name)) for name in ("train", "val", "test")}
    return {**parts, "all": len(dataset)}, len(dataset.classes)


@lru_cache(maxsize=64)
def _rows(data: str, part: str) -> int:
    """Return the images of an official part of some data."""
    config = DataConfig.model_validate_json(data)
    table = open_data(config.name, config.classes, **config.options).table
    return len(table) if part == "all" else int((table.split == part).sum())
