"""The claims as the page shows them: a row of the table, and a card with the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from diascope.report import numbers as n
from diascope.report.study import words
from diascope.report.study.charts import bar_chart
from diascope.report.study.series import Bar, Bars, Value, bounds_of
from diascope.studies.results import ClaimResult, Decision, StudyResults


@dataclass(frozen=True)
class Deciding:
    """One decision as it is shown: the paper's attack, or the strongest."""

    title: str
    verdict: str
    sign: str
    effect: str
    seeds: str
    p: str
    quantities: list[tuple[str, str, str]]  # name, value with interval, each seed
    sizes: str


@dataclass(frozen=True)
class Shown:
    """A claim as it is shown."""

    claim: ClaimResult
    id: str
    sign: str
    published: str
    ours: list[tuple[str, str]]  # what, and its value with interval
    effect: str
    p: str
    seeds: str
    few: bool
    deciding: str
    decisions: list[Deciding] = field(default_factory=list)
    masked: list[tuple[str, list[str]]] = field(default_factory=list)
    chart: Markup | None = None


def shown(results: StudyResults) -> list[Shown]:
    """Return every claim, those that cannot be tested last."""
    return [_shown(claim, k) for k, claim in enumerate(claims_of(results), 1)]


def claims_of(results: StudyResults) -> list[ClaimResult]:
    """Return the claims, and those of the study file that cannot be tested, each once."""
    there = {claim.name for claim in results.claims}
    rest = [
        ClaimResult(
            name=name,
            says=str(spec.get("says", name)),
            statement="",
            verdict="not testable here",
            published=dict(spec.get("published") or {}),
            where=str(spec.get("where") or ""),
            reason=str(spec.get("reason") or ""),
        )
        for name, spec in (results.study.get("untestable") or {}).items()
        if name not in there
    ]
    return [*results.claims, *rest]


def complete(results: StudyResults) -> StudyResults:
    """Return results that count the claims that cannot be tested among the others."""
    return replace(results, claims=claims_of(results))


def _shown(claim: ClaimResult, number: int) -> Shown:
    decision = claim.decision
    decisions = []
    if decision is not None:
        robust = claim.strongest is not None
        decisions.append(_deciding(decision, "On the named attack" if robust else ""))
    if claim.strongest is not None:
        decisions.append(_deciding(claim.strongest, "On the strongest attack"))
    few = decision is not None and words.few_seeds(decision)
    return Shown(
        claim=claim,
        id=f"claim-{number}",
        sign=words.SIGNS[claim.verdict],
        published=words.published(claim.published),
        ours=_ours(decision),
        effect=words.effect(decision) if decision else n.DASH,
        p=words.p_text(decision.p_corrected) if decision else n.DASH,
        seeds=words.seeds_text(decision.by_seed, signed=True) if decision and few else "",
        few=few,
        deciding=words.deciding(claim),
        decisions=decisions,
        masked=[(run, list(checks)) for run, checks in claim.masked.items() if checks],
        chart=_chart(claim, number),
    )


def _ours(decision: Decision | None) -> list[tuple[str, str]]:
    if decision is None:
        return []
    return [(q.name, n.ranged(bounds_of(q.bounds))) for q in decision.quantities]


def _deciding(decision: Decision, title: str) -> Deciding:
    sizes = f"{decision.images:,} images of {decision.groups:,} groups".replace(",", "\u202f")
    seeds = len(decision.by_seed)
    return Deciding(
        title=title,
        verdict=decision.verdict,
        sign=words.SIGNS[decision.verdict],
        effect=words.effect(decision),
        seeds=words.seeds_text(decision.by_seed, signed=True),
        p=f"{words.p_text(decision.p)}, corrected {words.p_text(decision.p_corrected)}",
        quantities=[
            (q.name, n.ranged(bounds_of(q.bounds)), words.seeds_text(q.seeds))
            for q in decision.quantities
        ],
        sizes=f"{sizes}, {seeds} seed{'s' if seeds != 1 else ''}",
    )


def _chart(claim: ClaimResult, number: int) -> Markup | None:
    """Draw the effect about zero, on the paper's attack and on the strongest."""
    pairs = [("effect", claim.decision), ("effect, strongest attack", claim.strongest)]
    if claim.strongest is not None:
        pairs[0] = ("effect, the named attack", claim.decision)
    bars = [
        Bar(name, k, Value(bounds_of(d.effect), dict(d.by_seed)))
        for k, (name, d) in enumerate(pairs)
        if d is not None and n.defined(d.effect.value)
    ]
    if not bars:
        return None
    title = f"Effect of claim {claim.name}"
    return bar_chart(Bars(title, bars, bodies=False), f"claim-{number}-effect")


@dataclass(frozen=True)
class Check:
    """One check on gradient masking: its verdict for each run, over the seeds."""

    name: str
    question: str
    outcomes: list[str]  # sign and word, one a run
    evidence: list[tuple[str, str]]  # run and what was seen


@dataclass(frozen=True)
class MaskingTable:
    """The checks of one evaluation."""

    evaluation: str
    runs: list[str]
    checks: list[Check]


MASKING_SIGNS = {"passed": "✓", "failed": "✗", "undecided": "?", "not applicable": "–"}


def masking_tables(results: StudyResults) -> list[MaskingTable]:
    """Return what the checks on gradient masking said, a table an evaluation that attacks."""
    tables = []
    for evaluation, runs in results.masking.items():
        found = {run: _by_check(seeds) for run, seeds in runs.items()}
        names = list(dict.fromkeys(name for each in found.values() for name in each))
        if not names:
            continue
        checks = []
        for name in names:
            cells = {run: _over_seeds(found[run].get(name, {})) for run in runs}
            evidence = [(run, seen) for run, (_, seen) in cells.items() if seen]
            asked = [o for of_run in found.values() for o in of_run.get(name, {}).values()]
            question = next((str(o["question"]) for o in asked if o.get("question")), "")
            told = [each for each, _ in cells.values()]
            checks.append(Check(name, question, told, evidence))
        tables.append(MaskingTable(evaluation, list(runs), checks))
    return tables


def _by_check(seeds: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, Any]]]:
    """Return the outcomes by check and seed."""
    found: dict[str, dict[str, Mapping[str, Any]]] = {}
    for seed, outcomes in seeds.items():
        for outcome in outcomes or []:
            found.setdefault(str(outcome["name"]), {})[str(seed)] = outcome
    return found


def _over_seeds(outcomes: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Return the gravest verdict over the seeds, with the seeds where not all have it."""
    if not outcomes:
        return n.DASH, ""
    order = ("failed", "undecided", "passed", "not applicable")
    verdicts = {seed: str(outcome.get("verdict", "")) for seed, outcome in outcomes.items()}
    gravest = next((v for v in order if v in verdicts.values()), next(iter(verdicts.values())))
    seeds = [seed for seed, verdict in verdicts.items() if verdict == gravest]
    among = ""
    if len(seeds) < len(verdicts):
        among = f" (seed {n.listed(seeds)} of {len(verdicts)})"
    evidence = "; ".join(
        f"seed {seed}: {outcome.get('evidence', '')}"
        for seed, outcome in outcomes.items()
        if verdicts[seed] == gravest and outcome.get("evidence")
    )
    return f"{MASKING_SIGNS.get(gravest, '')} {gravest}{among}".strip(), evidence
