"""The claims as the page shows them: a row of the table, and a card with the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from markupsafe import Markup

from diascope.report import numbers as n
from diascope.report.study import words
from diascope.report.study.charts import bar_chart
from diascope.report.study.checks import ClaimCheck, claim_checks
from diascope.report.study.series import Bar, Bars, Value, bounds_of
from diascope.studies.claims import CLAIMS
from diascope.studies.claims.peak import Peak
from diascope.studies.results import (
    ClaimResult,
    Decision,
    QuantityResult,
    StudyResults,
    verdict_text,
    would_decide,
)


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
    conditions: list[str]


@dataclass(frozen=True)
class Shown:
    """A claim as it is shown."""

    claim: ClaimResult
    id: str
    sign: str
    verdict: str
    published: str
    ours: list[tuple[str, str]]  # what, and its value with interval
    effect: str
    p: str
    seeds: str
    few: bool
    deciding: str
    decisions: list[Deciding] = field(default_factory=list)
    checks: list[ClaimCheck] = field(default_factory=list)
    chart: Markup | None = None
    side: str = ""  # where the claim holds, under the chart

    @property
    def reasons(self) -> list[tuple[str, str]]:
        """Return what stands under the verdict, with a name: why it is so, what would decide it."""
        parts = [("Why", self.claim.reason), ("To decide it", self.deciding)]
        return [(name, told) for name, told in parts if told]


def shown(results: StudyResults) -> list[Shown]:
    """Return every claim, those that cannot be tested last."""
    tests = {name: spec.get("test") for name, spec in (results.study.get("claims") or {}).items()}
    return [
        _shown(claim, k, tests.get(claim.name)) for k, claim in enumerate(claims_of(results), 1)
    ]


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


def _shown(claim: ClaimResult, number: int, test: Mapping[str, Any] | None) -> Shown:
    decision, strongest = claim.decision, claim.strongest
    first = _subject_first(test)
    decisions = []
    if decision is not None:
        decisions.append(_deciding(decision, "On the named attack" if strongest else "", first))
    if strongest is not None:
        decisions.append(_deciding(strongest, "On the strongest attack", first))
    few = decision is not None and words.few_seeds(decision)
    return Shown(
        claim=claim,
        id=f"claim-{number}",
        sign=words.SIGNS[claim.verdict],
        verdict=verdict_text(claim),
        published=words.published(claim.published),
        ours=[(q.name, n.ranged(bounds_of(q.bounds))) for q in _quantities(decision, first)],
        effect=words.effect(decision) if decision else n.DASH,
        p=words.p_text(decision.p_corrected) if decision else n.DASH,
        seeds=words.each_seed(decision) if decision and not decision.seeds_drawn else "",
        few=few,
        deciding=would_decide(claim),
        decisions=decisions,
        checks=claim_checks(claim),
        chart=_chart(claim, number),
        side=_side(decision),
    )


def _subject_first(test: Mapping[str, Any] | None) -> list[int]:
    """Return in which order the quantities of a claim are shown: of a peak, those inside first."""
    if not test or test.get("name") != "peak":
        return []
    claim: Peak = CLAIMS.build(dict(test), "claim")
    inside = {str(place) for place in claim.inside}
    return sorted(range(len(claim.places)), key=lambda q: str(claim.places[q]) not in inside)


def _quantities(decision: Decision | None, order: list[int]) -> list[QuantityResult]:
    if decision is None:
        return []
    found = decision.quantities
    return [found[q] for q in order] if len(order) == len(found) else list(found)


def _deciding(decision: Decision, title: str, order: list[int]) -> Deciding:
    return Deciding(
        title=title,
        verdict=decision.verdict,
        sign=words.SIGNS[decision.verdict],
        effect=words.effect(decision),
        seeds=words.each_seed(decision),
        p=words.p_of_family(decision),
        quantities=[
            (q.name, n.ranged(bounds_of(q.bounds)), words.seeds_text(q.seeds))
            for q in _quantities(decision, order)
        ],
        sizes=words.sizes(decision),
        conditions=[
            f"{each.name}: difference {n.ranged(bounds_of(each.difference), signed=True)}, "
            f"one-sided p of above {words.p_text(each.p_above)}"
            for each in decision.conditions
        ],
    )


def _side(decision: Decision | None) -> str:
    """Return in words where the effect must lie for the claim to hold."""
    if decision is None or not decision.thresholds:
        return ""
    told = [words.plain(edge) for edge in decision.thresholds]
    return f"above {told[0]}" if len(told) == 1 else f"between {told[0]} and {told[-1]}"


def _chart(claim: ClaimResult, number: int) -> Markup | None:
    """Draw the effect and what it is held against, on the paper's attack and on the strongest."""
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
    edges = claim.decision.thresholds if claim.decision else []
    title = f"Effect of claim {claim.name}"
    drawn = Bars(title, bars, bodies=False, edges=list(edges))
    return bar_chart(drawn, f"claim-{number}-effect")
