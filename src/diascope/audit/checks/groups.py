"""Is the model worse for some patients, places or devices than for the others?"""

from __future__ import annotations

from diascope.audit.attributes import FEW
from diascope.audit.checks import CHECKS
from diascope.audit.parts import GroupScore, Severity
from diascope.audit.results import Finding, ModelResult, Results

GROUPS = 5  # patients or lesions; of fewer nothing is said
MEDIUM, HIGH = 0.05, 0.15  # by which the whole interval must lie below the rest


@CHECKS.register("groups")
def groups(results: Results) -> list[Finding]:
    """Find values whose accuracy lies below the rest's, corrected for how many are compared."""
    found = []
    for model in results.models:
        for attribute in dict.fromkeys(score.attribute for score in model.group_scores):
            worse = [
                score
                for score in model.group_scores
                if score.attribute == attribute
                and score.images >= FEW
                and score.groups >= GROUPS
                and score.rest_corrected[2] < 0
            ]
            if worse:
                found.append(_finding(model, attribute, worse))
    return found


def _finding(model: ModelResult, attribute: str, worse: list[GroupScore]) -> Finding:
    """Return the finding of one attribute: the value that is worst, and the others."""
    order = sorted(worse, key=lambda score: score.rest[0])
    first = order[0]
    named = f"{attribute} {first.value}"
    others = f" and {len(order) - 1} other values" if len(order) > 1 else ""
    mixed = attribute != "class" and not first.within[2] < 0
    meaning = (
        "Images of this class are missed more often than the accuracy over all of them tells."
        if attribute == "class"
        else "Whoever is behind these images gets worse answers than the accuracy promises."
    )
    if mixed:
        meaning += (
            " Within classes the difference is not settled: another mix of classes may do it."
        )
    return Finding(
        check="groups",
        model=model.name,
        severity=_severity(first, attribute == "class" or mixed),
        title=f"{model.name} is worse for {named}{others}",
        evidence="; ".join(_told(score, len(model.group_scores)) for score in order[:4]),
        meaning=meaning,
        remedy=(
            "Weigh the class in training, or gather more images of it."
            if attribute == "class"
            else "Look at its errors among the cases; gather images of this kind for training and "
            "validation, and state the accuracy of each."
        ),
        count=sum(score.images for score in order),
    )


def _told(score: GroupScore, compared: int) -> str:
    value, low, high = score.rest_corrected
    text = (
        f"{score.value} ({score.images} images of {score.groups}): accuracy "
        f"{score.accuracy[0]:.3f}, {value:+.3f} [{low:+.3f}, {high:+.3f}] from the rest, corrected "
        f"for {compared} comparisons"
    )
    if score.within[0] == score.within[0]:
        text += (
            f"; within classes {score.within[0]:+.3f} "
            f"[{score.within[1]:+.3f}, {score.within[2]:+.3f}]"
        )
    return text


def _severity(score: GroupScore, milder: bool) -> Severity:
    """Return how grave a difference is; one that classes or their mix may explain is less so."""
    below = -score.rest_corrected[2]
    if below > HIGH:
        return "medium" if milder else "high"
    return "medium" if below > MEDIUM and not milder else "low"
