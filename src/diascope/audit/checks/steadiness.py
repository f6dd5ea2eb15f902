"""Do the maps stay where the image, or what was learned, hardly changes?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.parts import Steadiness
from diascope.audit.results import Finding, ModelResult, Results

MEASURE = "spearman"
STEADY = 0.5  # rank correlation of the pixels, under which two maps are not called alike


@CHECKS.register("steadiness")
def steadiness(results: Results) -> list[Finding]:
    """Find models whose maps change under noise that nobody sees, or with the training seed."""
    found = []
    for model in results.models:
        noisy = _unsteady(model, "noise ")
        found += [_under_noise(model.name, noisy)] if noisy else []
        seeded = _unsteady(model, "seed of ")
        found += [_between_seeds(model.name, seeded)] if seeded else []
    return found


def _unsteady(model: ModelResult, against: str) -> list[tuple[str, Steadiness]]:
    """Return method and number where the interval lies below `STEADY`."""
    return [
        (scores.name, each)
        for scores in model.maps
        for each in scores.steadiness
        if each.measure == MEASURE and each.against.startswith(against) and each.value[2] < STEADY
    ]


def _under_noise(model: str, found: list[tuple[str, Steadiness]]) -> Finding:
    return Finding(
        check="steadiness",
        model=model,
        severity="medium",
        title=f"Maps of {model} change under noise that nobody sees ({_names(found)})",
        evidence=_evidence(found),
        meaning=(
            "Two images that look the same to everyone have different maps. What one map shows is "
            "in part an accident of its pixels."
        ),
        remedy=(
            "Average the maps over noise (smoothgrad), or train the model adversarially, "
            "which makes gradients less noisy; show no single map as evidence."
        ),
    )


def _between_seeds(model: str, found: list[tuple[str, Steadiness]]) -> Finding:
    return Finding(
        check="steadiness",
        model=model,
        severity="low",
        title=f"Maps of {model} are not those of its training from another seed ({_names(found)})",
        evidence=_evidence(found),
        meaning=(
            "Trained anew in the same way, the model would look elsewhere: its maps tell of this "
            "one set of weights, not of the task."
        ),
        remedy="Say nothing of where such models look on the strength of one seed; train several.",
    )


def _names(found: list[tuple[str, Steadiness]]) -> str:
    return ", ".join(dict.fromkeys(name for name, _ in found))


def _evidence(found: list[tuple[str, Steadiness]]) -> str:
    told = "; ".join(
        f"{name}, {each.against}: {each.value[0]:.2f} [{each.value[1]:.2f}, {each.value[2]:.2f}] "
        f"on {each.images} images"
        for name, each in found
    )
    return f"rank correlation of the pixels of both maps: {told}; at least {STEADY} is asked"
