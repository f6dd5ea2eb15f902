"""Does the accuracy survive perturbations that nobody sees?"""

from __future__ import annotations

import math

from diascope.audit.checks import CHECKS
from diascope.audit.results import Finding, Results

HIDDEN = 1 / 255  # a root-mean-square change of one grey level, which nobody sees
FAINT = 4 / 255  # of four, which is hard to see in a photograph


@CHECKS.register("fragility")
def fragility(results: Results) -> list[Finding]:
    """Find models that fall below chance under a change too small to see.

    Not those that are no better than chance without one: there is nothing that they could lose.
    """
    chance, found = results.data["chance"], []
    for model in results.models:
        if not (model.curve and model.curve[0][1] > chance):
            continue
        below = [
            (eps, bounds)
            for eps, bounds in zip(results.epsilons, model.curve, strict=True)
            if eps > 0 and bounds[2] < chance and root_mean_square(results, eps) <= FAINT
        ]
        if not below:
            continue
        eps, (value, low, high) = below[0]
        change = root_mean_square(results, eps)
        found.append(
            Finding(
                check="fragility",
                model=model.name,
                severity="high" if change <= HIDDEN else "medium",
                title=f"{model.name} falls below chance at {results.norm} eps {eps:.3g}",
                evidence=(
                    f"accuracy {value:.3f} [{low:.3f}, {high:.3f}] under attack, "
                    f"{model.curve[0][0]:.3f} of the same images without, chance {chance:.3f}; "
                    f"a change of {change * 255:.1f} grey levels in the root mean square"
                ),
                meaning=(
                    "A change that nobody sees, or hardly, chosen by someone who knows the model, "
                    "turns its answers. It rests on features that people do not use."
                ),
                remedy="Train adversarially at an epsilon near this one, and audit it again.",
            )
        )
    return found


def root_mean_square(results: Results, eps: float) -> float:
    """Return the root-mean-square change of a pixel's channel that `eps` allows, in [0, 1]."""
    if results.norm == "linf":
        return eps
    return eps / math.sqrt(3 * results.data["size"] ** 2)
