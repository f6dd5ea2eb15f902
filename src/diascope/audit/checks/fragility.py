"""Does the accuracy survive perturbations that nobody sees?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.results import Finding, Results


@CHECKS.register("fragility")
def fragility(results: Results) -> list[Finding]:
    """Find models that fall below chance within the grid of epsilons."""
    chance, found = results.data["chance"], []
    for model in results.models:
        below = [
            (eps, bounds)
            for eps, bounds in zip(results.epsilons, model.curve, strict=True)
            if eps > 0 and bounds[2] < chance
        ]
        if not below:
            continue
        eps, (value, low, high) = below[0]
        found.append(
            Finding(
                check="fragility",
                severity="high" if eps <= _middle(results.epsilons) else "medium",
                title=f"{model.name} falls below chance at {results.norm} eps {eps:.3g}",
                evidence=(
                    f"accuracy {value:.3f} [{low:.3f}, {high:.3f}] under attack, chance "
                    f"{chance:.3f}, clean {model.scores['accuracy'][0]:.3f}"
                ),
                meaning=(
                    "A change of this size, chosen by someone who knows the model, turns its "
                    "answers. It rests on features that people do not see."
                ),
                remedy="Train adversarially at an epsilon near this one, and audit it again.",
            )
        )
    return found


def _middle(epsilons: list[float]) -> float:
    return sorted(epsilons)[len(epsilons) // 2]
