"""What a study came to, as kept in its `results.json` and shown in its report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from diascope.audit.results import plain
from diascope.errors import UserError
from diascope.files import write_text

SCHEMA = "diascope-study-results-1"
Verdict = Literal[
    "supported",
    "refuted",
    "undecided",
    "under a weak attack",
    "under a masked gradient",
    "not testable here",
    "not run",
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


def save(results: StudyResults, folder: Path) -> Path:
    """Write `results.json` into the folder and return its path; it holds no NaN."""
    path = folder / "results.json"
    write_text(path, json.dumps(plain(results), indent=1, allow_nan=False) + "\n")
    return path


def load(path: Path) -> StudyResults:
    """Read what `save` wrote: the file, or its folder; a `UserError` says why it cannot be."""
    path = path / "results.json" if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: there is no such file; run the study first") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read ({' '.join(str(error).split())})") from None
    schema = content.get("schema") if isinstance(content, dict) else None
    if schema != SCHEMA:
        raise UserError(
            f"{path}: no results of a study: its 'schema' is {schema!r}, not '{SCHEMA}'"
        )
    try:
        return TypeAdapter(StudyResults).validate_python(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UserError(f"{path}: '{place}': {first['msg'].lower()}") from None


def told(bounds: Bounds, digits: int = 3) -> str:
    """Return a value and its interval, such as "0.240 [0.181, 0.300]"."""
    if bounds.low is None or bounds.high is None:
        return f"{bounds.value:.{digits}f}"
    return f"{bounds.value:.{digits}f} [{bounds.low:.{digits}f}, {bounds.high:.{digits}f}]"


def claims_table(claims: Sequence[ClaimResult], digits: int = 3) -> str:
    """Return the claims as a table in Markdown, and below it the reasons where there are any.

    A row a claim: what it says, what the paper has, ours (the effect and each quantity, with
    intervals of level 0.95), each seed where there are fewer than five, p after correction, and
    the verdict.
    """
    head = ["claim", "published", "ours", "seeds", "p (Holm)", "verdict"]
    rows = [head, ["---"] * len(head)]
    for claim in claims:
        found = claim.decision
        p = "" if found is None else _p(found.p_corrected)
        ours, seeds = _ours(claim, digits), _seeds(claim, digits)
        said = [f"**{claim.name}** {claim.says}", f"`{claim.statement}`" if claim.statement else ""]
        if claim.instead_of:
            said.append(f"instead of: {claim.instead_of}")
        rows.append([_lines(said), _published(claim), ours, seeds, p, _verdict(claim)])
    table = "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in r) + " |" for r in rows
    )
    reasons = [f"- **{claim.name}**: {claim.reason}" for claim in claims if claim.reason]
    return "\n".join([table, "", *reasons, ""] if reasons else [table, ""])


def _ours(claim: ClaimResult, digits: int) -> str:
    if claim.decision is None:
        return ""
    lines = [f"effect {told(claim.decision.effect, digits)}"]
    lines += [f"{q.name}: {told(q.bounds, digits)}" for q in claim.decision.quantities]
    if claim.strongest is not None:
        effect = told(claim.strongest.effect, digits)
        lines.append(f"strongest attack: effect {effect}, {claim.strongest.verdict}")
    return _lines(lines)


def _seeds(claim: ClaimResult, digits: int) -> str:
    if claim.decision is None:
        return ""
    by_seed = claim.decision.by_seed
    if len(by_seed) >= 5:
        return f"{len(by_seed)}"
    return _lines([f"{seed}: {value:.{digits}f}" for seed, value in by_seed.items()])


def _published(claim: ClaimResult) -> str:
    told = [f"{name}: {value}" for name, value in claim.published.items()]
    return _lines([*told, f"({claim.where})" if claim.where else ""])


def _verdict(claim: ClaimResult) -> str:
    found = claim.decision
    if found is None or claim.verdict != "undecided":
        return claim.verdict
    needed = [
        f"{number:,} {noun}"
        for number, noun in ((found.needed_images, "images"), (found.needed_seeds, "seeds"))
        if number is not None
    ]
    return f"undecided (about {' or '.join(needed)} would decide)" if needed else "undecided"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _lines(lines: Sequence[str]) -> str:
    return "<br>".join(line for line in lines if line)
