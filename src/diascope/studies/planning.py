"""From a study to its jobs: what is trained and examined, in an order that works."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from diascope.errors import UserError, nearest
from diascope.objectives.base import objectives
from diascope.registry import to_settings
from diascope.settings import validate
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.identity import config_identity, measure_identity, revised
from diascope.studies.jobs import Job
from diascope.studies.stated import read_claims
from diascope.studies.study import NEXT, RUN, Study, strings
from diascope.training.compare import FREE
from diascope.training.config import DataConfig, TrainConfig

Keys = dict[str, dict[int, str]]  # run -> seed -> key


@dataclass(frozen=True)
class Plan:
    """The jobs of a study, each after those it needs, and where the results of each part lie.

    jobs: those that are to be done; every: those of the whole study. runs: the keys of trainings
    by run and seed; tables: those of examinations by evaluation, run and seed, of the whole study.
    """

    study: Study
    file: Path
    jobs: tuple[Job, ...]
    every: tuple[Job, ...] = ()
    runs: Keys = field(default_factory=dict)
    tables: dict[str, Keys] = field(default_factory=dict)


def plan_study(study: Study, file: Path, only: Sequence[str] = ()) -> Plan:
    """Return the plan of a study read from `file`.

    Seed after seed, each run in the order of the file, and every examination as soon as the models
    that it looks at are trained, so that what is interrupted is a smaller study. `only`: names of
    runs, evaluations or claims; what these need is kept. Raises `UserError` for mistakes in
    configurations, evaluations and names.
    """
    claims = read_claims(study, str(file))
    planner = _Planner(study, file)
    pairs = [(name, run) for name in study.evaluations for run in examined(study, name)]
    for seed in study.seeds:
        for run in study.runs:
            planner.train(run, seed)
            planner.examine(pairs, seed)
    planner.examine(pairs)
    every = tuple(planner.jobs.values())
    plan = Plan(study, file, every, every, planner.runs, planner.tables)
    if not only:
        return plan
    reads = {name: [(a.evaluation, a.run) for a in claims[name].atoms] for name in claims}
    keep = _with_needs(_asked(plan, only, reads), every)
    return replace(plan, jobs=tuple(job for job in every if job.key in keep))


def joined(plans: Iterable[Plan]) -> list[Job]:
    """Return the jobs of several plans, in order, each once."""
    jobs: dict[str, Job] = {}
    for plan in plans:
        for job in plan.jobs:
            jobs.setdefault(job.key, job)
    return list(jobs.values())


def examined(study: Study, evaluation: str) -> list[str]:
    """Return the runs that an evaluation examines."""
    given = study.evaluations[evaluation].runs
    return list(study.runs) if given is None else given


def _asked(
    plan: Plan, only: Sequence[str], reads: Mapping[str, Sequence[tuple[str, str]]]
) -> set[str]:
    """Return the keys that names of runs, evaluations and claims ask for.

    reads: the (evaluation, run) whose tables a claim reads, by its name.
    """
    asked, known = set[str](), [*plan.runs, *plan.tables, *reads]
    for name in only:
        if name not in known:
            raise UserError(
                f"{plan.file}: --only {name}: no run, evaluation or claim: {nearest(name, known)}"
            )
        asked |= set(plan.runs.get(name, {}).values())
        for keys in plan.tables.get(name, {}).values():
            asked |= set(keys.values())
        for evaluation, run in reads.get(name, ()):
            asked |= set(plan.tables[evaluation][run].values())
    return asked


def _with_needs(keys: set[str], jobs: Sequence[Job]) -> set[str]:
    """Return keys and those of all that they need; jobs come after those that they need."""
    found = set(keys)
    for job in reversed(jobs):
        if job.key in found:
            found |= set(job.needs)
    return found


class _Planner:
    """Collects jobs, each after those that it needs."""

    def __init__(self, study: Study, file: Path) -> None:
        self.study, self.file = study, file
        self.jobs: dict[str, Job] = {}
        self.runs: Keys = {}
        self.tables: dict[str, Keys] = {name: {} for name in study.evaluations}
        self._measures = {
            name: _measure(spec.measure, f"{file}: evaluations.{name}")
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
        of_stages = [stage.get("objective") for stage in config["stages"]]
        revision = revised(objectives, config["objective"], *of_stages)
        job = Job(
            "train",
            f"{self.study.name}: train {run}, seed {seed}",
            {"config": _named(config_identity(config), starts), **revision},
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
                    **revised(EVALUATIONS, self._measures[evaluation]),
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
            seeds = self.study.seeds
            after = seeds[(seeds.index(seed) + 1) % len(seeds)]
            others = {
                name: (name.removesuffix(NEXT), after if name.endswith(NEXT) else seed)
                for name in beside
                if name != run
            }
        wanted = [(run, seed), *others.values()]
        if there and any(s not in self.runs.get(name, {}) for name, s in wanted):
            return None
        return {name: self.train(*which) for name, which in others.items()}


def _measure(measure: Mapping[str, Any] | str, where: str) -> dict[str, Any]:
    """Return the settings of an evaluation; raises `UserError`, beginning with `where`."""
    try:
        return measure_identity(to_settings(EVALUATIONS.build(measure, where)))
    except UserError as error:  # of a part of it, which does not know where it stands
        told = str(error)
        raise UserError(told if told.startswith(where) else f"{where}: {told}") from None


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
