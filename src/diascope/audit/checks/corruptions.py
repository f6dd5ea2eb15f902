"""Does the accuracy survive what happens to photographs by themselves?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.parts import CorruptionScore, Severity
from diascope.audit.results import Finding, ModelResult, Results

MARGIN = 0.05  # a loss of accuracy that is put up with
LARGE = 0.20
MILD, USUAL = 2, 3  # severities
REMEDY = {
    "blur": "blur",
    "colour_cast": "shifts of the white balance",
    "contrast": "changes of contrast",
    "exposure": "changes of brightness",
    "jpeg": "JPEG compression",
    "motion": "motion blur",
    "noise": "sensor noise",
    "resolution": "loss of resolution",
    "rotation": "small rotations",
}


@CHECKS.register("corruptions")
def corruptions(results: Results) -> list[Finding]:
    """Find models that surely lose over 5 points of accuracy under a change that happens."""
    found = []
    for model in results.models:
        lost = [score for score in model.corruptions if score.drop[1] > MARGIN]
        usual = [score for score in lost if score.severity <= USUAL]
        if lost:
            found.append(_finding(results, model, usual or lost))
    return found


def _finding(results: Results, model: ModelResult, lost: list[CorruptionScore]) -> Finding:
    """Return the finding of one model: the corruption that costs most, and the others."""
    costs = {}  # of each corruption, the severity at which it costs most
    for score in sorted(lost, key=lambda score: score.drop[0]):
        costs[score.name] = score
    order = sorted(costs.values(), key=lambda score: -score.drop[0])
    worst, others = order[0], order[1:]
    evidence = "; ".join(_told(score) for score in order[:4])
    evidence += f"; and {len(order) - 4} more" if len(order) > 4 else ""
    meaning = "Such changes come by themselves, with another camera, lamp or hand."
    attack = _under_attack(results, model)
    if attack is not None:
        clean, attacked = attack
        evidence += (
            f". Under attack at {results.norm} eps {results.reference_eps:.3g} accuracy goes from "
            f"{clean:.3f} to {attacked:.3f}"
        )
        if worst.distance == worst.distance and results.reference_eps > 0:
            share = worst.distance / results.reference_eps
            evidence += f"; {_words(worst.name)} moves an image {share:.2g} times as far"
        if worst.drop[0] >= clean - attacked:
            meaning += " This one costs more than the attack: it needs no adversary to fail."
        else:
            meaning += " The attack costs more, but somebody must mount it; this comes without."
    names = [REMEDY.get(score.name, _words(score.name)) for score in [worst, *others[:2]]]
    return Finding(
        check="corruptions",
        model=model.name,
        severity=_severity(lost),
        title=f"{model.name} loses {100 * worst.drop[0]:.0f} points of accuracy to "
        f"{_words(worst.name)} at severity {worst.severity}",
        evidence=evidence,
        meaning=meaning,
        remedy=(
            f"Train with {', '.join(names)} among the augmentations, or check for them before an "
            "image is read, and audit it again."
        ),
        count=worst.images,
    )


def _severity(lost: list[CorruptionScore]) -> Severity:
    """Return high for a large loss to a mild change, medium for one to a usual, else low."""
    if any(score.severity <= MILD and score.drop[1] > LARGE for score in lost):
        return "high"
    return "medium" if any(score.severity <= USUAL for score in lost) else "low"


def _under_attack(results: Results, model: ModelResult) -> tuple[float, float] | None:
    """Return the accuracy of the curve without an attack and at the reference epsilon."""
    eps = results.reference_eps
    if eps <= 0 or eps not in results.epsilons or len(model.curve) < len(results.epsilons):
        return None
    clean, attacked = model.curve[0][0], model.curve[results.epsilons.index(eps)][0]
    return (clean, attacked) if clean == clean and attacked == attacked else None


def _told(score: CorruptionScore) -> str:
    value, low, high = score.drop
    return (
        f"{_words(score.name)} at severity {score.severity}: accuracy {score.accuracy[0]:.3f}, "
        f"a drop of {value:.3f} [{low:.3f}, {high:.3f}]"
    )


def _words(name: str) -> str:
    return "JPEG" if name == "jpeg" else name.replace("_", " ")
