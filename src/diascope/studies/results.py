"""What a study came to, as kept in its `results.json` and shown in its report."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

SCHEMA = "diascope-study-results-1"
Verdict = Literal[
    "supported", "refuted", "undecided", "under a masked gradient", "not testable here", "not run"
]


@dataclass(frozen=True)
class Bounds:
    """A value with its interval of level 0.95; the limits are None where there is no interval."""

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class QuantityResult:
    """One quantity: its value over the seeds with its interval, and each seed's value."""

    name: str  # as the study file writes it
    bounds: Bounds
    seeds: dict[int, float]
    images: int
    groups: int


@dataclass(frozen=True)
class Decision:
    """How one claim was decided, on one attack.

    effect: the number shown (such as a - b), over images, and over seeds where there are five;
    by_seed: that of each seed. p: two-sided, of the contrast that decides, before and after Holm's
    correction for the number of claims. needed_images, needed_seeds: how many would decide it, by
    the spread seen here; None where it is decided, or no number would.
    """

    verdict: Verdict
    effect: Bounds
    by_seed: dict[int, float]
    p: float
    p_corrected: float
    quantities: list[QuantityResult]
    images: int
    groups: int
    needed_images: int | None = None
    needed_seeds: int | None = None


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its verdict.

    decision: on what the paper measured. strongest: of a claim about robustness, the same on the
    strongest attack of each evaluation. masked: which runs' gradients the checks found masked, with
    the check that says so. reason: why it was not decided, or why the verdict is not that of the
    decision.
    """

    name: str
    says: str
    statement: str
    verdict: Verdict
    published: dict[str, float | str] = field(default_factory=dict)
    where: str = ""
    reason: str = ""
    instead_of: str = ""
    decision: Decision | None = None
    strongest: Decision | None = None
    masked: dict[str, list[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class JobResult:
    """What became of one job: its label, state, seconds, and where its result lies."""

    key: str
    label: str
    kind: str
    state: str
    seconds: float
    reason: str = ""
    hardware: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StudyResults:
    """A study with its claims decided.

    study: the study file's content at this scale. jobs: every piece of work. tables: of each
    evaluation the key of its table by run and seed, from which all numbers can be recomputed.
    masking: of each evaluation that attacks, what the checks said, by run and seed. regenerate: the
    command that makes all of it anew.
    """

    name: str
    title: str
    source: str
    scale: str
    study: dict[str, Any]
    claims: list[ClaimResult]
    jobs: list[JobResult]
    tables: dict[str, dict[str, dict[str, str]]]  # evaluation -> run -> seed -> key
    about: dict[str, dict[str, dict[str, Any]]]  # evaluation -> run -> seed -> about
    masking: dict[str, dict[str, dict[str, Any]]]
    regenerate: str
    created: str
    seconds: float  # of all the jobs, whenever they were done
    hardware: list[str] = field(default_factory=list)
    complete: bool = True
    schema: str = SCHEMA
