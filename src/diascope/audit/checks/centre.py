"""Do the maps tell more than that lesions sit in the middle?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.parts import Localisation
from diascope.audit.results import Finding, ModelResult, Results

MEASURE = "average_precision"


@CHECKS.register("centre")
def centre(results: Results) -> list[Finding]:
    """Find models whose maps localise worse than chance, or than a blob that sees no image.

    A model has one finding for the methods below chance, and one for those below the blob alone.
    """
    found = []
    for model in results.models:
        methods = _methods(results, model)
        below = {name: m for name, m in methods.items() if m.above_chance[2] < 0}
        behind = {
            name: m for name, m in methods.items() if name not in below and m.above_centre[2] < 0
        }
        found += [_below_chance(model.name, below)] if below else []
        found += [_behind_the_middle(model.name, behind)] if behind else []
    return found


def _methods(results: Results, model: ModelResult) -> dict[str, Localisation]:
    """Return the measure by method; that of the shown maps where no others were measured."""
    if model.maps:
        return {s.name: s.localisation[MEASURE] for s in model.maps if MEASURE in s.localisation}
    shown = str(results.explainer.get("name", "the shown maps"))
    return {shown: model.localisation[MEASURE]} if MEASURE in model.localisation else {}


def _below_chance(model: str, methods: dict[str, Localisation]) -> Finding:
    return Finding(
        check="centre",
        model=model,
        severity="medium",
        title=f"The maps of {model} avoid the region ({', '.join(methods)})",
        evidence=_evidence(methods),
        meaning=(
            "A map that is the same everywhere would have found more of the region. Either the "
            "model goes by what lies around it, or the method does not show what it goes by."
        ),
        remedy=(
            "Look at the cases: at corners, borders, rulers and markers. Cover the region, and see "
            "whether the answers stay; if they do, the model does not use it."
        ),
    )


def _behind_the_middle(model: str, methods: dict[str, Localisation]) -> Finding:
    return Finding(
        check="centre",
        model=model,
        severity="low",
        title=(
            f"The maps of {model} find the region worse than a blob in the middle "
            f"({', '.join(methods)})"
        ),
        evidence=_evidence(methods),
        meaning=(
            "These maps alone do not show that the model looks at the lesion: guessing "
            "the middle would have found more of it."
        ),
        remedy=(
            "Compare with other explanations and models before reading such maps, and "
            "whether they change when the model's weights are drawn anew."
        ),
    )


def _evidence(methods: dict[str, Localisation]) -> str:
    return "; ".join(
        f"{name}: average precision {m.value[0]:.3f}, of a centred Gaussian {m.centre[0]:.3f}, "
        f"difference {m.above_centre[0]:+.3f} [{m.above_centre[1]:+.3f}, {m.above_centre[2]:+.3f}]"
        f", chance {m.chance[0]:.3f}, difference {m.above_chance[0]:+.3f} "
        f"[{m.above_chance[1]:+.3f}, {m.above_chance[2]:+.3f}]"
        for name, m in methods.items()
    )
