"""Does what was measured here hold in another hospital?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.parts import Elsewhere, Severity
from diascope.audit.results import Finding, ModelResult, Results

WORDS = {"balanced_accuracy": "balanced accuracy", "auroc": "AUROC", "accuracy": "accuracy"}
MEDIUM, HIGH = 0.03, 0.10  # by which the whole interval of the drop must lie above 0


@CHECKS.register("elsewhere")
def elsewhere(results: Results) -> list[Finding]:
    """Find models whose scores fall out of hospital, by an interval that excludes no drop."""
    found = []
    for model in results.models:
        for place in model.elsewhere:
            score = _telling(place)
            if score is not None:
                found.append(_finding(results, model, place, score))
    return found


def _telling(place: Elsewhere) -> str | None:
    """Return the score whose drop is surest, of those that no mix of classes can move.

    Plain accuracy, which another mix of classes moves, is asked only where neither is defined.
    """
    known = [name for name in ("balanced_accuracy", "auroc") if _low(place, name) is not None]
    names = known or [name for name in ("accuracy",) if _low(place, name) is not None]
    falls = [name for name in names if (_low(place, name) or 0.0) > 0]
    return max(falls, key=lambda name: _low(place, name) or 0.0) if falls else None


def _low(place: Elsewhere, score: str) -> float | None:
    low = place.drop[score][1] if score in place.drop else float("nan")
    return low if low == low else None


def _finding(results: Results, model: ModelResult, place: Elsewhere, score: str) -> Finding:
    value, low, high = place.drop[score]
    there = place.scores[score]
    here = place.here[score][0] if score in place.here else there[0] + value
    missing = f"; no images of {', '.join(place.missing)} there" if place.missing else ""
    attacked = place.attacked
    under = (
        f"; under attack at {results.norm} eps {results.reference_eps:.3g} accuracy there is "
        f"{attacked[0]:.3f} [{attacked[1]:.3f}, {attacked[2]:.3f}]"
        if attacked[0] == attacked[0]
        else ""
    )
    lost = _no_skill(results, place)
    meaning = (
        "There it is no better than a guess: what it learnt is of this place, not of the disease."
        if lost
        else "Part of what it knows holds only here: its cameras, its patients, its habits."
    )
    return Finding(
        check="elsewhere",
        model=model.name,
        severity="high" if lost else _severity(low),
        title=f"{model.name} loses {100 * value:.0f} points of {WORDS[score]} in {place.name}",
        evidence=(
            f"{WORDS[score]} {here:.3f} here, there {there[0]:.3f} [{there[1]:.3f}, {there[2]:.3f}]"
            f" ({place.images} images of {place.groups}): a drop of {value:.3f} "
            f"[{low:.3f}, {high:.3f}]{under}{missing}"
        ),
        meaning=meaning,
        remedy=(
            "Test it on images of each place before it works there; look for a shortcut among the "
            "findings on the data and in the maps; train on several hospitals."
        ),
        count=place.images,
    )


def _no_skill(results: Results, place: Elsewhere) -> bool:
    """Tell whether nothing shows that the model knows anything there."""
    classes = len(results.data.get("classes", [])) - len(place.missing)
    balanced = place.scores.get("balanced_accuracy")
    if balanced is None or classes < 2 or balanced[1] != balanced[1]:
        return False
    return balanced[1] <= 1 / classes


def _severity(low: float) -> Severity:
    if low > HIGH:
        return "high"
    return "medium" if low > MEDIUM else "low"
