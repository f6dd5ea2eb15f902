"""How a study was done: its jobs, the machines and hours, and the resolved configurations."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from diascope.report import numbers as n
from diascope.report.study.words import hours
from diascope.studies.results import JobResult, StudyResults

STATES = {"done": "✓ done", "there": "✓ was there", "failed": "✗ failed", "left": "○ left"}


@dataclass(frozen=True)
class JobRow:
    """One job as the table of jobs shows it."""

    label: str
    kind: str
    state: str
    time: str
    hardware: str
    reason: str
    key: str


@dataclass(frozen=True)
class Configuration:
    """A resolved configuration, and the runs that it belongs to; they differ in the seed alone."""

    labels: list[str]
    text: str


def job_rows(results: StudyResults) -> list[JobRow]:
    """Return every job in its order."""
    return [
        JobRow(
            job.label,
            {"train": "training", "examine": "examination"}.get(job.kind, job.kind),
            STATES.get(job.state, job.state),
            n.duration(job.seconds) if job.seconds else n.DASH,
            hardware_text(job.hardware),
            job.reason,
            job.key,
        )
        for job in results.jobs
    ]


def hardware_text(hardware: Mapping[str, Any]) -> str:
    """Return a machine in a few words: its GPU, or its processor and threads."""
    gpus = hardware.get("gpus") or []
    names = [str(g.get("name", g)) if isinstance(g, Mapping) else str(g) for g in gpus]
    if names:
        return n.listed(list(dict.fromkeys(names)))
    cpu, threads = hardware.get("cpu"), hardware.get("threads")
    told = str(cpu) if cpu else ""
    if threads:
        told += f"{', ' if told else ''}{threads} thread{'s' if threads != 1 else ''}"
    return told or n.DASH


def machines(results: StudyResults) -> str:
    """Return the machines that did the jobs."""
    found = list(dict.fromkeys(results.hardware))
    if not found:
        told = dict.fromkeys(hardware_text(job.hardware) for job in results.jobs)
        found = [each for each in told if each != n.DASH]
    return "; ".join(found) or n.DASH


def shared_seconds(studies: Sequence[StudyResults]) -> dict[str, float]:
    """Return of each study, by its name, the seconds of jobs that another of them has as well."""
    having = Counter(key for results in studies for key in {job.key for job in results.jobs})
    return {
        results.name: sum(
            job.seconds
            for job in results.jobs
            if having[job.key] > 1 and job.state in ("done", "there")
        )
        for results in studies
    }


def totals(results: StudyResults, store: Path | None = None) -> list[tuple[str, str]]:
    """Return hours and machines, trainings and examinations apart.

    store: where the records say for which study a job was first done; without, it is not told.
    """
    pairs = []
    for kind, name in (("train", "Trainings"), ("examine", "Examinations")):
        jobs = [job for job in results.jobs if job.kind == kind]
        if jobs:
            there = [job for job in jobs if job.state in ("done", "there")]
            count = f"{len(there)} of {len(jobs)}" if len(there) < len(jobs) else f"{len(jobs)}"
            pairs.append((name, f"{count}, {hours(sum(job.seconds for job in there))} h"))
    pairs.append(("Together", f"{hours(results.seconds)} h"))
    first = first_done_for(results, store) if store else {}
    told = [f"{name} {hours(seconds)} h" for name, seconds in sorted(first.items())]
    if told:
        pairs.append(("Of which first done for", ", ".join(told)))
    versions = list(dict.fromkeys(job.version for job in results.jobs if job.version))
    if versions:
        pairs.append(("Diascope", n.listed(versions)))
    return [*pairs, ("Machines", machines(results))]


def first_done_for(results: StudyResults, store: Path) -> dict[str, float]:
    """Return the seconds of jobs that were first done for other studies, by the study's name."""
    found: dict[str, float] = {}
    for job in results.jobs:
        record = store / ("runs" if job.kind == "train" else "tables") / f"{job.key}.json"
        if job.state in ("done", "there") and record.is_file():
            label = json.loads(record.read_text("utf-8")).get("label", "")
            name, colon, _ = label.partition(": ")
            if colon and name != results.name:
                found[name] = found.get(name, 0.0) + job.seconds
    return found


def configurations(results: StudyResults, store: Path) -> list[Configuration]:
    """Return the resolved configuration of every run in the store, equal ones together.

    Runs that differ in nothing but the seed are shown once, with the first one's seed.
    """
    found: dict[str, Configuration] = {}
    for job in results.jobs:
        content = _config(job, store)
        if content is None:
            continue
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=90)
        alike = json.dumps(_seedless(content), sort_keys=True, default=str)
        if alike in found:
            found[alike].labels.append(job.label)
        else:
            found[alike] = Configuration([job.label], text)
    return list(found.values())


def _config(job: JobResult, store: Path) -> dict[str, Any] | None:
    """Return the configuration of a training, without what tells of the one run."""
    file = store / "runs" / job.key / "config.yaml"
    if job.kind != "train" or not file.is_file():
        return None
    content = yaml.safe_load(file.read_text("utf-8"))
    if not isinstance(content, dict):
        return None
    return {key: value for key, value in content.items() if key not in ("record", "out")}


def _seedless(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration without its seed and its place of starting weights."""
    training = {k: v for k, v in (content.get("training") or {}).items() if k != "seed"}
    model = {k: v for k, v in (content.get("model") or {}).items() if k != "weights"}
    return {**content, "training": training, "model": model}
