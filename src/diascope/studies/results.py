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
    "refuted under a weak attack",
    "refuted under a masked gradient",
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
    """One quantity: its value over the seeds with its interval, and each seed's value.

    images: on which it is defined in any seed. images_by_seed: in each; empty where not told.
    """

    name: str  # as the study file writes it
    bounds: Bounds
    seeds: dict[int, float]
    images: int
    groups: int
    images_by_seed: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """What a claim presupposes (`above` in the study file): that a quantity is above a level.

    difference: the quantity less the level. p_above, p_below: one-sided, of what it would take to
    say that it is, or that it is not. by_seed: the difference in each seed.
    """

    name: str  # "QUANTITY > LEVEL", as the study file writes them
    difference: Bounds
    p_above: float
    p_below: float
    by_seed: dict[int, float]


@dataclass(frozen=True)
class Decision:
    """How one claim was decided, on one attack.

    effect: the number shown (such as a - b), over images, and over seeds where `seeds_drawn`;
    by_seed: that of each seed. thresholds: what the effect is held against: above the one, or
    between the two. p: two-sided, of the contrast that decides, before and after Holm's correction
    for the number of claims, of which there were `family`. images, groups: on which the claim is
    decided, in any seed; images_by_seed: in each.

    seeds_drawn: whether p and the interval speak of new seeds: there are five, and they do not
    agree to the last image. seeds_differ: where there are fewer, whether some of them says by
    itself what all together do not say; no verdict is then given.

    needed_images, needed_seeds: how many would decide it, the other number staying as it is;
    needed_both: so many images and seeds together, where neither would alone. By the spread seen
    here, with a probability of 0.8; None where it is decided, the seeds differ, or none would.
    available_images: how many the tests have; None where that is not known.
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
    needed_both: tuple[int, int] | None = None
    available_images: int | None = None
    images_by_seed: dict[int, int] = field(default_factory=dict)
    thresholds: list[float] = field(default_factory=list)
    seeds_drawn: bool = False
    seeds_differ: bool = False
    family: int = 1
    conditions: list[Condition] = field(default_factory=list)


@dataclass(frozen=True)
class FailedCheck:
    """A check on gradient masking that failed for a run that a claim about robustness reads.

    seeds: in which it failed, of `checked` seeds in which the checks ran. accuses: "gradients",
    which the run then masks; "attack", which may not have found all it can; "report", how a figure
    is told. favoured: whether the outcome is in favour of the run. evidence: of the first seed.
    """

    run: str
    evaluation: str
    name: str
    seeds: list[int]
    checked: int
    accuses: Literal["gradients", "attack", "report"]
    favoured: bool
    evidence: str


@dataclass(frozen=True)
class ClaimResult:
    """A claim with its verdict.

    decision: on what the paper measured. strongest: of a claim about robustness, the same on the
    strongest attack of each evaluation. reason: why it was not decided, or why the verdict is not
    that of the decision.

    these_seeds: where the verdict speaks of the seeds alone that were trained, being fewer than
    five or all alike, how many; None where it speaks of new seeds, or there is no verdict.
    qualifications: what must be said with the verdict, a clause each.
    checked: of each run whose robustness the claim reads, in how many of its seeds the checks on
    gradient masking ran; 0 where they did not. Empty for claims about other things.
    failed: every check that failed for one of these runs. masked: in words, those that accuse
    gradients, by run.
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
    these_seeds: int | None = None
    qualifications: list[str] = field(default_factory=list)
    checked: dict[str, int] = field(default_factory=dict)
    failed: list[FailedCheck] = field(default_factory=list)


@dataclass(frozen=True)
class JobResult:
    """What became of one job: its label, state, seconds, and where its result lies.

    doubts: what was warned of while it was done. Of an examination images: on how many the model
    was examined; left_out: how many were not, by reason. version: which Diascope did it.
    """

    key: str
    label: str
    kind: str
    state: str
    seconds: float
    reason: str = ""
    hardware: dict[str, Any] = field(default_factory=dict)
    doubts: list[str] = field(default_factory=list)
    images: int | None = None
    left_out: dict[str, int] = field(default_factory=dict)
    version: str = ""


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
    deciding = would_decide(claim)
    return _lines(
        [
            verdict_text(claim) + (f" ({deciding})" if deciding else ""),
            *(f"but {each}" for each in claim.qualifications),
        ]
    )


def verdict_text(claim: ClaimResult) -> str:
    """Return the verdict, and of which models it is where it speaks of no others."""
    if claim.these_seeds is None:
        return claim.verdict
    models = "this one model" if claim.these_seeds == 1 else f"these {claim.these_seeds} models"
    return f"{claim.verdict}, of {models} of each run"


def claim_line(claim: ClaimResult) -> str:
    """Return a claim in a line: the verdict, and the effect with its interval and p."""
    if claim.decision is None:
        return f"{claim.name}: {verdict_text(claim)}"
    p = _p(claim.decision.p_corrected)
    found = f"effect {told(claim.decision.effect)}, p {p if p.startswith('<') else f'= {p}'}"
    return f"{claim.name}: {verdict_text(claim)}: {found}"


def would_decide(claim: ClaimResult) -> str:
    """Return what would decide an undecided claim, one clause; empty for any other.

    Numbers are estimates, and rounded up to two figures.
    """
    found = claim.decision
    if claim.verdict != "undecided" or found is None:
        return ""
    if found.verdict != "undecided" and claim.strongest is not None:
        found = claim.strongest
    if found.seeds_drawn:
        return f"{_enough(found)} would decide it, if the effect stays as it is"
    more = _rounded(found.needed_images) if found.needed_images else 0
    models = "this model" if len(found.by_seed) == 1 else f"these {len(found.by_seed)} models"
    few = len(found.by_seed) < 5
    why = "with fewer than five seeds" if few else "where all seeds agree exactly"
    new = f"of new models nothing is said {why}"
    if found.seeds_differ:
        return "it takes five seeds or more, for these differ"
    if not more:
        return f"no number of images would decide it; {new}"
    return f"about {_images(more, found)} would decide it for {models}; {new}"


def _enough(found: Decision) -> str:
    """Return how many images or seeds are enough."""
    images, seeds = found.needed_images, found.needed_seeds
    alone = [_images(_rounded(images), found)] if images else []
    alone += [_counted(_rounded(seeds), "seed")] if seeds else []
    if alone:
        return f"about {' or '.join(alone)}"
    if found.needed_both is None:
        return "no number of images and seeds that could be had"
    images, seeds = (_rounded(number) for number in found.needed_both)
    both = f"about {_images(images, found)} and {_counted(seeds, 'seed')} together"
    return f"{both}, and neither alone,"


def _images(count: int, found: Decision) -> str:
    there = found.available_images
    beyond = there is not None and count > there
    return _counted(count, "image") + (
        f" (more than the {there:,} that there are)" if beyond else ""
    )


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _rounded(count: int) -> int:
    """Return a number to two figures, upwards."""
    unit: int = 10 ** max(len(str(count)) - 2, 0)
    return -(-count // unit) * unit


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _lines(lines: Sequence[str]) -> str:
    return "<br>".join(line for line in lines if line)
