"""What speaks against the numbers of a study: doubts, images left out, checks that failed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from diascope.report import numbers as n
from diascope.report.study import words
from diascope.studies.results import StudyResults

EXPECTED = ("seen in training or validation", "not drawn", "not in the test split")
MOST = 4  # runs that are named, of one doubt
_SEED = re.compile(r", seed (\d+)$")


@dataclass(frozen=True)
class Against:
    """One thing that speaks against numbers, and against which."""

    told: str
    where: str

    @property
    def line(self) -> str:
        """Return it as one line."""
        return f"{self.told} ({self.where})" if self.where else self.told


def against(results: StudyResults) -> list[Against]:
    """Return what was recorded against a study's numbers, each thing once, with where."""
    found = [
        *_jobs_missing(results),
        *_doubts(results),
        *_left_out(results),
        *_below_8_bits(results),
        *_failed_checks(results),
    ]
    few = [c for c in results.claims if c.decision and words.few_seeds(c.decision)]
    return [*found, Against(words.FEW_SEEDS, "")] if few else found


def _jobs_missing(results: StudyResults) -> list[Against]:
    missing = [job.label for job in results.jobs if job.state in ("failed", "left")]
    return [Against("Not done, and missing in what is shown", _places(missing))] if missing else []


def _doubts(results: StudyResults) -> list[Against]:
    of_text: dict[str, list[str]] = {}
    for job in results.jobs:
        for doubt in job.doubts:
            of_text.setdefault(doubt, []).append(job.label)
    return [Against(text, _places(labels)) for text, labels in of_text.items()]


def _left_out(results: StudyResults) -> list[Against]:
    """Return the images that could not be used; those that tests leave out by design are none."""
    of_reason: dict[tuple[str, int], list[str]] = {}
    for job in results.jobs:
        for reason, count in job.left_out.items():
            if reason not in EXPECTED and count:
                of_reason.setdefault((reason, count), []).append(job.label)
    return [
        Against(f"{words.count_text(count)} images left out: {reason}", _places(labels))
        for (reason, count), labels in of_reason.items()
    ]


def _below_8_bits(results: StudyResults) -> list[Against]:
    found = []
    for evaluation, by_run in results.about.items():
        each = [about or {} for by_seed in by_run.values() for about in by_seed.values()]
        below = sorted({eps for about in each for eps in about.get("below_8_bits") or ()})
        if below:
            told = n.listed([words.plain(eps) for eps in below])
            found.append(
                Against(f"eps {told}: smaller than any change that 8 bits can hold", evaluation)
            )
    return found


def _failed_checks(results: StudyResults) -> list[Against]:
    """Return the checks on gradient masking that failed, with the runs and in how many seeds."""
    found = []
    for evaluation, by_run in results.masking.items():
        failed: dict[str, list[str]] = {}
        for run, by_seed in by_run.items():
            checked = [outcomes for outcomes in by_seed.values() if outcomes]
            names = [
                str(o["name"]) for outcomes in checked for o in outcomes if _failed(o["verdict"])
            ]
            for name in dict.fromkeys(names):
                told = f"{run} in {names.count(name)} of {len(checked)} seeds"
                failed.setdefault(name, []).append(told)
        for name, runs in failed.items():
            told = f"Check on gradient masking '{name}' failed"
            found.append(Against(told, f"{evaluation}: {'; '.join(runs)}"))
    return found


def _failed(verdict: object) -> bool:
    return verdict == "failed"


def _places(labels: Iterable[str]) -> str:
    """Return jobs by their labels, `attacked of asgt, seeds 0 and 3`, of many the first."""
    seeds: dict[str, list[str]] = {}
    for label in labels:
        label = label.partition(": ")[2] or label
        match = _SEED.search(label)
        seeds.setdefault(label[: match.start()] if match else label, []).extend(
            match.groups() if match else ()
        )
    told = [
        f"{label}, seed{'s' if len(found) > 1 else ''} {n.listed(found)}" if found else label
        for label, found in seeds.items()
    ]
    rest = [f"and {len(told) - MOST} more"] if len(told) > MOST else []
    return "; ".join([*told[:MOST], *rest])
