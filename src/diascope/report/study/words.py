"""The verdicts of a study in signs, words and sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from diascope.report import numbers as n
from diascope.report.study.series import bounds_of
from diascope.studies.results import (
    ClaimResult,
    Decision,
    StudyResults,
    Verdict,
)

SIGNS: dict[Verdict, str] = {
    "supported": "✓",
    "refuted": "✗",
    "undecided": "?",
    "under a weak attack": "◔",
    "under a masked gradient": "◑",
    "refuted under a weak attack": "◖",
    "refuted under a masked gradient": "◗",
    "not testable here": "–",
    "not run": "○",
}
MEANINGS: dict[Verdict, str] = {
    "supported": "Shown to hold: p, corrected for the number of claims, is below 0.05.",
    "refuted": "Shown not to hold, likewise.",
    "undecided": "Neither: the corrected p is 0.05 or more, or fewer than five seeds disagree. "
    "The interval may lie on one side all the same, for it is not corrected.",
    "under a weak attack": "Shown on the attack it names, and not on the strongest.",
    "under a masked gradient": "Shown on the attack it names, while the checks find the gradients "
    "of the side it favours masked: what looks robust may only lead attacks astray.",
    "refuted under a weak attack": "Refuted on the attack it names, and not on the strongest.",
    "refuted under a masked gradient": "Refuted on the attack it names, in favour of a side whose "
    "gradients the checks find masked.",
    "not testable here": "What it needs is not to be had here; the reason stands beside it.",
    "not run": "The models or measurements that it needs are not there yet.",
}
HOLM = (
    "Verdicts go by p, which is two-sided and corrected by Holm's method for the number of claims "
    "of the study; the intervals, each of 95%, are not corrected."
)
ENOUGH = 5  # seeds from which something is said of new ones
FEW_SEEDS = (
    "Fewer than five seeds: the effect of each is shown, verdicts and intervals speak of these "
    "models, and nothing is said of new ones."
)
INTERVALS = (
    "Intervals of 95% are over images, in whole groups; from five seeds on over seeds as well."
)
WHISKERS = "Whiskers are 95% intervals: over images, and from five seeds on over seeds as well"


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
        "refuted under a weak attack": (
            "is refuted only under a weak attack",
            "are refuted only under a weak attack",
        ),
        "refuted under a masked gradient": (
            "is refuted only under a masked gradient",
            "are refuted only under a masked gradient",
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


def spoken_of(claims: Iterable[ClaimResult]) -> str:
    """Return how many verdicts speak of the trained models alone, or are qualified; or nothing."""
    claims = list(claims)
    alone = sum(claim.these_seeds is not None for claim in claims)
    qualified = sum(bool(claim.qualifications) for claim in claims)
    told = []
    if alone:
        speak = "verdict speaks" if alone == 1 else "verdicts speak"
        told.append(f"{alone} {speak} of the models that were trained, and of no others.")
    if qualified:
        told.append(f"{qualified} {'is' if qualified == 1 else 'are'} qualified.")
    return " ".join(told)


def p_text(p: float) -> str:
    """Return a p-value, three digits; small ones as a bound."""
    if not n.defined(p):
        return n.DASH
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def p_of_family(decision: Decision) -> str:
    """Return p before and after the correction, and for how many claims it was corrected."""
    count = decision.family
    family = f" for {count} claims" if count > 1 else ""
    return f"{p_text(decision.p)}, corrected{family} {p_text(decision.p_corrected)}"


def seeds_text(by_seed: Mapping[int, float], signed: bool = False) -> str:
    """Return each seed's value, `seed 0: 0.71; seed 1: 0.69`."""
    return "; ".join(f"seed {s}: {n.number(v, 3, signed)}" for s, v in sorted(by_seed.items()))


def seeds_apart(decision: Decision) -> str:
    """Return where the seeds do not agree, a clause; empty where they do."""
    values = [v for v in decision.by_seed.values() if n.defined(v)]
    for edge in [0.0, *decision.thresholds]:
        if any(v < edge for v in values) and any(v > edge for v in values):
            apart = f"the seeds lie on both sides of {plain(edge)}"
            return apart if edge else "the seeds differ in sign"
    return ""


def each_seed(decision: Decision) -> str:
    """Return the effect of each seed, and whether they do not agree."""
    parts = [seeds_text(decision.by_seed, signed=True), seeds_apart(decision)]
    return "; ".join(part for part in parts if part)


def few_seeds(decision: Decision) -> bool:
    """Tell whether there are too few seeds to say anything of new ones."""
    return len(decision.by_seed) < ENOUGH


def sizes(decision: Decision) -> str:
    """Return on how many images, groups and seeds a claim was decided."""
    counts = set(decision.images_by_seed.values()) or {decision.images}
    least, most = min(counts), max(counts)
    images = count_text(most) if least == most else f"{count_text(least)} to {count_text(most)}"
    seeds = len(decision.by_seed)
    told = f"{images} images of {count_text(decision.groups)} groups"
    return f"{told}, {seeds} seed{'s' if seeds != 1 else ''}"


def effect(decision: Decision) -> str:
    """Return the effect with its interval, signed."""
    return n.ranged(bounds_of(decision.effect), signed=True)


def published(values: Mapping[str, float | str]) -> str:
    """Return what the paper has, `ST 27.88; SGT 51.79`."""
    return "; ".join(f"{k} {plain(v)}" for k, v in values.items())


def hours(seconds: float) -> str:
    """Return seconds as hours, two figures."""
    if not n.defined(seconds):
        return n.DASH
    value = seconds / 3600
    return f"{value:.2g}" if value < 10 else f"{value:.0f}"


def plain(value: float | str) -> str:
    """Return a number as it is written by hand; words as they are."""
    return value if isinstance(value, str) else f"{value:g}".replace("-", n.MINUS)


def count_text(count: int) -> str:
    """Return a number of things, thousands apart."""
    return f"{count:,}".replace(",", "\u202f")
