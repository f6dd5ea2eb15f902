"""From a study to its jobs: what is trained and examined, in an order that works."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diascope.errors import UserError, nearest
from diascope.registry import to_settings
from diascope.settings import validate
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.jobs import Job
from diascope.studies.study import RUN, Study, strings
from diascope.training.compare import FREE
from diascope.training.config import DataConfig, TrainConfig

_READS = re.compile(r"(?:^|[\s:])(?P<run>[^\s:/]+)/(?P<evaluation>[A-Za-z0-9_-]+)")
Keys = dict[str, dict[int, str]]  # run -> seed -> key


@dataclass(frozen=True)
class Plan:
    """The jobs of a study, each after those it needs, and where the results of each part lie.

    runs: the keys of trainings by run and seed; tables: those of examinations by evaluation, run
    and seed.
    """

    study: Study
    file: Path
    jobs: tuple[Job, ...]
    runs: Keys = field(default_factory=dict)
    tables: dict[str, Keys] = field(default_factory=dict)


def plan_study(study: Study, file: Path, only: Sequence[str] = ()) -> Plan:
    """Return the plan of a study read from `file`.

    Seed after seed, each run in the order of the file, and every examination as soon as the models
    that it looks at are trained, so that what is interrupted is a smaller study. `only`: names of
    runs, evaluations or claims; what these need is kept. Raises `UserError` for mistakes in
    configurations, evaluations and names.
    """
    wanted = _wanted(study, file, only)
    planner = _Planner(study, file)
    for seed in study.seeds:
        for run in study.runs:
            if run in wanted.runs:
                planner.train(run, seed)
                planner.examine(wanted.pairs, seed)
    planner.examine(wanted.pairs)
    return Plan(study, file, tuple(planner.jobs.values()), planner.runs, planner.tables)


def joined(plans: Iterable[Plan]) -> list[Job]:
    """Return the jobs of several plans, in order, each once."""
    jobs: dict[str, Job] = {}
    for plan in plans:
        for job in plan.jobs:
            jobs.setdefault(job.key, job)
    return list(jobs.values())


@dataclass(frozen=True)
class _Wanted:
    """Which runs are trained, and which (evaluation, run) are examined."""

    runs: set[str]
    pairs: list[tuple[str, str]]


def _wanted(study: Study, file: Path, only: Sequence[str]) -> _Wanted:
    every = [(name, run) for name, spec in study.evaluations.items() for run in _runs(study, name)]
    if not only:
        return _Wanted(set(study.runs), every)
    known = [*study.runs, *study.evaluations, *study.claims]
    runs, pairs = set[str](), set[tuple[str, str]]()
    for name in only:
        if name not in known:
            raise UserError(
                f"{file}: --only {name}: no run, evaluation or claim: {nearest(name, known)}"
            )
        if name in study.runs:
            runs.add(name)
        if name in study.evaluations:
            pairs |= {(name, run) for run in _runs(study, name)}
        if name in study.claims:
            pairs |= set(reads(study, name))
    for evaluation, run in pairs:
        beside = study.evaluations[evaluation].beside
        runs |= {run, *([] if beside == "seeds" else beside)}
    return _Wanted(runs, [pair for pair in every if pair in pairs])


def _runs(study: Study, evaluation: str) -> list[str]:
    given = study.evaluations[evaluation].runs
    return list(study.runs) if given is None else given


def reads(study: Study, claim: str) -> list[tuple[str, str]]:
    """Return the (evaluation, run) whose tables a claim reads."""
    found = dict.fromkeys(
        (match["evaluation"], match["run"])
        for text in strings(study.claims[claim].test)
        for match in _READS.finditer(text)
    )
    return [(e, run) for e, run in found if e in study.evaluations and run in _runs(study, e)]


class _Planner:
    """Collects jobs, each after those that it needs."""

    def __init__(self, study: Study, file: Path) -> None:
        self.study, self.file = study, file
        self.jobs: dict[str, Job] = {}
        self.runs: Keys = {}
        self.tables: dict[str, Keys] = {name: {} for name in study.evaluations}
        self._measures = {
            name: to_settings(EVALUATIONS.build(spec.measure, f"{file}: evaluations.{name}"))
            for name, spec in study.evaluations.items()
        }

    def train(self, run: str, seed: int, above: tuple[str, ...] = ()) -> str:
        """Add the training of a run and those it starts from; return its key."""
        if run in above:
            chain = " -> ".join([*above[above.index(run) :], run])
            raise UserError(f"{self.file}: runs.{run}: starts from itself ({chain})")
        if seed in self.runs.get(run, {}):
            return self.runs[run][seed]
        starts = {r: self.train(r, seed, (*above, run)) for r in self.study.starts(run)}
        config, free = parted(self.study.config(run, seed, self.file))
        job = Job(
            "train",
            f"{self.study.name}: train {run}, seed {seed}",
            {"config": _named(config, starts)},
            tuple(starts.values()),
            free,
        )
        self.jobs.setdefault(job.key, job)
        self.runs.setdefault(run, {})[seed] = job.key
        return job.key

    def examine(self, pairs: Sequence[tuple[str, str]], seed: int | None = None) -> None:
        """Add the examinations of a seed whose models are trained before; None for all others."""
        for evaluation, run in pairs:
            for each in self.study.seeds if seed is None else [seed]:
                if each in self.tables[evaluation].get(run, {}):
                    continue
                beside = self._beside(evaluation, run, each, there=seed is not None)
                if beside is None:
                    continue
                key = self.runs[run][each]
                spec = self.study.evaluations[evaluation]
                content = {
                    "run": key,
                    "test": self.study.tests[spec.on].model_dump(mode="json"),
                    "measure": self._measures[evaluation],
                    "beside": beside,
                }
                label = f"{self.study.name}: {evaluation} of {run}, seed {each}"
                needs = tuple(dict.fromkeys([key, *beside.values()]))
                job = Job("examine", label, content, needs)
                self.jobs.setdefault(job.key, job)
                self.tables[evaluation].setdefault(run, {})[each] = job.key

    def _beside(
        self, evaluation: str, run: str, seed: int, *, there: bool
    ) -> dict[str, str] | None:
        """Return the keys of the runs beside, by name; None where `there` and not all are."""
        beside = self.study.evaluations[evaluation].beside
        if beside == "seeds":
            others = {f"seed {s}": (run, s) for s in self.study.seeds if s != seed}
        else:
            others = {name: (name, seed) for name in beside if name != run}
        wanted = [(run, seed), *others.values()]
        if there and any(s not in self.runs.get(name, {}) for name, s in wanted):
            return None
        return {name: self.train(*which) for name, which in others.items()}


def parted(config: TrainConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a run depends on, as plain values, and the rest in dotted keys."""
    content = config.to_dict()
    content.pop("out")
    training, free = dict(content["training"]), dict[str, Any]()
    for dotted in FREE:
        leaf = dotted.partition(".")[2]
        free[dotted] = training.pop(leaf)
    stages = [{k: v for k, v in stage.items() if k not in FREE} for stage in content["stages"]]
    return {**content, "training": training, "stages": stages}, free


def _named(value: Any, keys: Mapping[str, str]) -> Any:
    """Return plain values in which runs are named by their keys."""
    if isinstance(value, str):
        return RUN.sub(lambda match: f"{{run:{keys[match[1]]}}}", value)
    if isinstance(value, Mapping):
        return {key: _named(each, keys) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_named(each, keys) for each in value]
    return value


def expanded(value: Any, store: Path, data: Path | None) -> Any:
    """Return plain values with the folders of runs and of all data in place of placeholders.

    Raises `UserError` where a value names `{data}` and no folder is given.
    """
    if isinstance(value, str):
        value = RUN.sub(lambda match: str(store / "runs" / match[1]), value)
        if "{data}" in value:
            if data is None:
                raise UserError(f"'{value}': give the folder of all data, --data or $DIASCOPE_DATA")
            value = value.replace("{data}", str(data))
        return value
    if isinstance(value, Mapping):
        return {key: expanded(each, store, data) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [expanded(each, store, data) for each in value]
    return value


def started_from(content: Mapping[str, Any]) -> Iterator[str]:
    """Yield the keys of the runs that a training's content names."""
    for text in strings(content):
        yield from RUN.findall(text)


def data_of(content: Mapping[str, Any], store: Path, data: Path | None) -> DataConfig:
    """Return the data of a training's content, placeholders expanded."""
    return validate(DataConfig, expanded(content["config"]["data"], store, data), "data")
