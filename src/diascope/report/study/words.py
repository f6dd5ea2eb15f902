"""The verdicts of a study in signs, words and sentences."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from diascope.report import numbers as n
from diascope.report.study.series import bounds_of
from diascope.studies.results import ClaimResult, Decision, StudyResults, Verdict

SIGNS: dict[Verdict, str] = {
    "supported": "✓",
    "refuted": "✗",
    "undecided": "?",
    "under a weak attack": "◔",
    "under a masked gradient": "◑",
    "not testable here": "–",
    "not run": "○",
}
MEANINGS: dict[Verdict, str] = {
    "supported": "The whole interval lies on the claim's side, corrected for the number of claims.",
    "refuted": "The whole interval lies on the other side, corrected likewise.",
    "undecided": "The interval holds both sides: these images and seeds do not decide it.",
    "under a weak attack": "It holds on the attack it names; a stronger one takes it away.",
    "under a masked gradient": "It holds on the attack it names, and checks found the gradients of "
    "the side it favours masked: what looks robust may only lead attacks astray.",
    "not testable here": "What it needs is not to be had here; the reason stands beside it.",
    "not run": "The models or measurements that it needs are not there yet.",
}
ENOUGH = 5  # seeds from which something is said of new ones
FEW_SEEDS = "Fewer than five seeds: each is shown, and nothing is said of new ones."


def counted(results: StudyResults) -> dict[Verdict, int]:
    """Return how many claims came to each verdict, those without any left out."""
    found = Counter(claim.verdict for claim in results.claims)
    return {verdict: found[verdict] for verdict in SIGNS if found[verdict]}


def sentence(counts: Mapping[Verdict, int]) -> str:
    """Return the verdicts at a glance, one sentence."""
    total = sum(counts.values())
    if not total:
        return "This study makes no claim."
    words = {
        "supported": ("is supported", "are supported"),
        "refuted": ("is refuted", "are refuted"),
        "undecided": ("is undecided", "are undecided"),
        "under a weak attack": ("holds only under a weak attack", "hold only under a weak attack"),
        "under a masked gradient": (
            "holds only under a masked gradient",
            "hold only under a masked gradient",
        ),
        "not testable here": ("cannot be tested here", "cannot be tested here"),
        "not run": ("was not run", "were not run"),
    }
    if len(counts) == 1:
        ((verdict, count),) = counts.items()
        subject = {1: "The one claim", 2: "Both claims"}.get(count, f"All {count} claims")
        return f"{subject} {words[verdict][count > 1]}."
    told = [f"{count} {words[verdict][count > 1]}" for verdict, count in counts.items()]
    return f"Of {total} claims {n.listed(told)}."


def p_text(p: float) -> str:
    """Return a p-value, three digits; small ones as a bound."""
    if not n.defined(p):
        return n.DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def seeds_text(by_seed: Mapping[int, float], signed: bool = False) -> str:
    """Return each seed's value, `seed 0: 0.71; seed 1: 0.69`."""
    return "; ".join(f"seed {s}: {n.number(v, 3, signed)}" for s, v in sorted(by_seed.items()))


def few_seeds(decision: Decision) -> bool:
    """Tell whether there are too few seeds to say anything of new ones."""
    return len(decision.by_seed) < ENOUGH


def effect(decision: Decision) -> str:
    """Return the effect with its interval, signed."""
    return n.ranged(bounds_of(decision.effect), signed=True)


def deciding(claim: ClaimResult) -> str:
    """Return what would decide an undecided claim; empty for any other."""
    decision = claim.decision
    if claim.verdict != "undecided" or decision is None:
        return ""
    parts = []
    if decision.needed_images:
        parts.append(f"about {_round(decision.needed_images):,} images")
    if decision.needed_seeds:
        parts.append(f"about {decision.needed_seeds} seeds")
    if not parts:
        return "no number of images or seeds would decide it at the effect seen here"
    told = n.listed(parts, "or").replace(",", "\u202f")
    return f"{told} would decide it, if the effect stays as it is seen here"


def published(values: Mapping[str, float | str]) -> str:
    """Return what the paper has, `ST 27.88; SGT 51.79`."""
    return "; ".join(f"{k} {_plain(v)}" for k, v in values.items())


def hours(seconds: float) -> str:
    """Return seconds as hours, two figures."""
    if not n.defined(seconds):
        return n.DASH
    value = seconds / 3600
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def _plain(value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:g}".replace("-", n.MINUS)


def _round(count: int) -> int:
    """Return a number of images to two figures, upwards: it is an estimate."""
    power: int = 10 ** max(len(str(count)) - 2, 0)
    return math.ceil(count / power) * power
