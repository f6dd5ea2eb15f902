"""Does the answer rest on what the maps call important?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.parts import MapScores
from diascope.audit.results import Finding, Results

FEWEST = 8  # images, with which it is judged at all
ENOUGH = 16  # with which "not shown" weighs more


@CHECKS.register("faithfulness")
def faithfulness(results: Results) -> list[Finding]:
    """Find methods whose order of the pixels does no better than a random one, by any measure."""
    found = []
    for model in results.models:
        failed = [scores for scores in model.maps if _no_better(scores)]
        if not failed:
            continue
        enough = any(f.images >= ENOUGH for s in failed for f in s.faithfulness.values())
        found.append(
            Finding(
                check="faithfulness",
                model=model.name,
                severity="medium" if enough else "low",
                title=(
                    f"What the maps of {model.name} call important is not shown to move its "
                    f"answers more than pixels at random "
                    f"({', '.join(scores.name for scores in failed)})"
                ),
                evidence="; ".join(_evidence(scores) for scores in failed),
                meaning=(
                    "When the pixels that the map marks are taken away, or given back, these "
                    "images do not show that the probability follows more than if they were drawn "
                    "by lot, and so not that the map tells what the answer rests on."
                ),
                remedy=(
                    "Use a method that does better than chance on this model. Where none does, the "
                    "answer may rest on the whole image: do not explain it by a map."
                ),
            )
        )
    return found


def _no_better(scores: MapScores) -> bool:
    """Tell whether no measure shows the map's order to be better than a random one."""
    judged = [f for f in scores.faithfulness.values() if f.images >= FEWEST]
    decided = [f for f in judged if f.over_random[1] == f.over_random[1]]
    return bool(decided) and not any(f.over_random[1] > 0 for f in decided)


def _evidence(scores: MapScores) -> str:
    told = ", ".join(
        f"{name} {f.value[0]:.3f}, at random {f.random[0]:.3f}, from the middle {f.centre[0]:.3f} "
        f"(better than random by {f.over_random[0]:+.3f} "
        f"[{f.over_random[1]:+.3f}, {f.over_random[2]:+.3f}])"
        for name, f in scores.faithfulness.items()
    )
    images = max((f.images for f in scores.faithfulness.values()), default=0)
    return f"{scores.name}, {images} images: {told}"
