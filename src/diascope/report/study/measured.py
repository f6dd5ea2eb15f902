"""How the numbers of a study were measured: each evaluation with its images and settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from diascope.registry import to_settings
from diascope.report.study.words import count_text, plain
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.results import JobResult, StudyResults

BUILT = {"explainers": "methods", "attacks": "paper", "attack": "built"}  # by evaluations
SILENT = {"name", "norm", "eps", "precision", "memory"}  # of an attack or an explainer
ALL = "all"
SUBSETS = ("images", "strongest_images", "masking_images", "faithfulness_images")
NAMES = {"images": "Images measured", "of": "Class explained"}


@dataclass(frozen=True)
class HowMeasured:
    """One evaluation: its measure, and its images and settings, each under its name."""

    evaluation: str
    measure: str
    settings: list[tuple[str, str]]

    @property
    def line(self) -> str:
        """Return it as one line."""
        told = "; ".join(f"{name}: {value}" for name, value in self.settings)
        return f"{self.evaluation} ({self.measure}): {told}"


def how_measured(results: StudyResults) -> list[HowMeasured]:
    """Return each evaluation of a study with its settings, none of them left to a default."""
    jobs = {job.key: job for job in results.jobs}
    tests = results.study.get("tests") or {}
    found = []
    for evaluation, spec in (results.study.get("evaluations") or {}).items():
        resolved = _resolved(spec["measure"], f"evaluations.{evaluation}.measure")
        name, about = str(resolved.pop("name")), _about(results, evaluation)
        told = [("Test", _test(str(spec["on"]), tests.get(spec["on"]) or {}))]
        of_jobs = [
            jobs[key]
            for by_seed in results.tables.get(evaluation, {}).values()
            for key in by_seed.values()
            if key in jobs
        ]
        told += _images(of_jobs)
        told += _settings(resolved, about)
        found.append(HowMeasured(evaluation, name, told))
    return found


def _resolved(measure: Mapping[str, Any] | str, where: str) -> dict[str, Any]:
    """Return the settings of an evaluation, its attacks and explainers with theirs."""
    built = EVALUATIONS.build(measure, where)
    settings = to_settings(built)
    for key, attribute in BUILT.items():
        members = getattr(built, attribute, None)
        if isinstance(members, Mapping):
            settings[key] = {name: to_settings(member) for name, member in members.items()}
        elif members is not None:
            settings[key] = to_settings(members)
    if settings.get("eps", 0) is None:  # nothing is attacked
        settings = {k: v for k, v in settings.items() if k not in ("attack", "norm")}
    return settings


def _about(results: StudyResults, evaluation: str) -> Mapping[str, Any]:
    """Return what the first examination tells of its settings."""
    of_runs = results.about.get(evaluation, {})
    return next((a for by_seed in of_runs.values() for a in by_seed.values() if a), {})


def _test(name: str, spec: Mapping[str, Any]) -> str:
    told = [f"{key} {_plain(value)}" for key, value in spec.items() if value not in (None, False)]
    return ", ".join([name, *(each for each in told if not each.endswith(" "))])


def _images(jobs: list[JobResult]) -> Iterator[tuple[str, str]]:
    """Yield on how many images the models were examined, and how many were left out, by reason."""
    counts = {job.images for job in jobs if job.images is not None}
    if counts:
        yield "Images examined", _range(counts)
    reasons = list(dict.fromkeys(reason for job in jobs for reason in job.left_out))
    told = [
        f"{_range({job.left_out.get(reason, 0) for job in jobs})} {reason}" for reason in reasons
    ]
    if told:
        yield "Images left out", ", ".join(told)


def _range(counts: set[int]) -> str:
    low, high = count_text(min(counts)), count_text(max(counts))
    return low if low == high else f"{low} to {high}"


def _settings(resolved: Mapping[str, Any], about: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the settings: how many images first, then members as they were built."""
    order = [key for key in SUBSETS if key in resolved]
    for key in [*order, *(key for key in resolved if key not in order)]:
        if key == "faithfulness_images" and not resolved["faithfulness"]:
            continue
        value = resolved[key]
        if isinstance(about.get(key), Mapping) or (value is None and key not in SUBSETS):
            value = about.get(key)
        if key in SUBSETS:
            told = _subset(key, value)
        elif isinstance(value, Mapping) and "name" in value:
            told = _member("", value)
        elif isinstance(value, Mapping):
            told = "; ".join(_member(name, each) for name, each in value.items())
        else:
            told = _plain(value)
        if told:
            yield NAMES.get(key, key.replace("_", " ").capitalize()), told


def _subset(key: str, value: Any) -> str:
    if value is None:
        return ALL
    return "0, the checks were not run" if key == "masking_images" and not value else _plain(value)


def _member(name: str, settings: Any) -> str:
    """Return an attack or an explainer with what it was built of."""
    if not isinstance(settings, Mapping):
        return f"{name} {_plain(settings)}".strip()
    kind = str(settings.get("name", name))
    told = []
    for key, value in settings.items():
        if key in SILENT or value is None or value is False:
            continue
        words = key.replace("_", " ")
        told.append(words if value is True else f"{words} {_plain(value)}")
    head = name if name in ("", kind) else f"{name}: "
    options = f" ({', '.join(told)})" if told else ""
    return f"{kind if head in ('', kind) else head + kind}{options}"


def _plain(value: Any) -> str:
    """Return a setting in words."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ((), [], {}, ""):
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(_plain(each) for each in value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_plain(each)}" for key, each in value.items())
    return count_text(value) if isinstance(value, int) else plain(value)
