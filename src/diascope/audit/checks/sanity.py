"""Do the maps depend on what the model has learned?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.parts import MapScores
from diascope.audit.results import Finding, Results
from diascope.evaluation.sanity import FEWEST, THRESHOLD


@CHECKS.register("sanity")
def sanity(results: Results) -> list[Finding]:
    """Find methods whose maps stay alike when every weight of the model is random.

    By all measures of likeness: the maps do not depend on the model. By some: much of them does
    not. A model has one finding for each, and a note on those that the intervals leave undecided.
    """
    found = []
    for model in results.models:
        run = [s for s in model.maps if s.sanity]
        failed = [s for s in run if s.passed is False]
        same = [s for s in failed if all(_low(s, name) > THRESHOLD for name in _last(s))]
        alike = [s for s in failed if s not in same]
        open_ = [s for s in run if s.passed is None]
        found += [_same(model.name, same)] if same else []
        found += [_alike(model.name, alike)] if alike else []
        found += [_undecided(model.name, open_)] if open_ else []
    return found


def _same(model: str, methods: list[MapScores]) -> Finding:
    return Finding(
        check="sanity",
        model=model,
        severity="medium",
        title=f"Maps of {model} stay the same without its weights ({_names(methods)})",
        evidence=_evidence(methods),
        meaning=(
            "The maps do not depend on what the model learned. They show the image, or the "
            "architecture, and would look as convincing for a model that knows nothing."
        ),
        remedy="Do not read these maps. Use a method whose maps change.",
    )


def _alike(model: str, methods: list[MapScores]) -> Finding:
    return Finding(
        check="sanity",
        model=model,
        severity="low",
        title=f"Maps of {model} still resemble those without its weights ({_names(methods)})",
        evidence=_evidence(methods),
        meaning=(
            "Part of what these maps show is the image's and the architecture's, not the model's: "
            "where they lie on the region, that is not all to the credit of what it learned."
        ),
        remedy=(
            "Compare maps with those of the randomised model, or of another model, not with "
            "nothing; and read small differences with care."
        ),
    )


def _undecided(model: str, methods: list[MapScores]) -> Finding:
    return Finding(
        check="sanity",
        model=model,
        severity="info",
        title=f"Whether maps of {model} depend on its weights is undecided ({_names(methods)})",
        evidence=_evidence(methods),
        meaning=(
            f"The interval holds {THRESHOLD}, no map was left to compare, or there were fewer "
            f"than {FEWEST} images: these maps have neither passed nor failed."
        ),
        remedy="Audit them again on more images: effort.sanity_images=32.",
    )


def _last(scores: MapScores) -> dict[str, float]:
    """Return the likeness where no learned weight is left, where it is defined."""
    return {name: v for name, v in scores.sanity[-1].agreement.items() if v == v}


def _low(scores: MapScores, measure: str) -> float:
    """Return the lower limit of the last likeness; the value where there is no interval."""
    last = scores.sanity[-1]
    return last.bounds[measure][1] if measure in last.bounds else last.agreement[measure]


def _names(methods: list[MapScores]) -> str:
    return ", ".join(scores.name for scores in methods)


def _evidence(methods: list[MapScores]) -> str:
    told = "; ".join(
        f"{s.name}, {s.sanity[-1].images} images: "
        + (", ".join(_value(s, name) for name in _last(s)) or "nothing defined")
        for s in methods
    )
    return f"likeness to the map with every weight random: {told}; at most {THRESHOLD} is asked"


def _value(scores: MapScores, measure: str) -> str:
    last = scores.sanity[-1]
    text = f"{measure} {last.agreement[measure]:.2f}"
    low, high = last.bounds.get(measure, (0.0, float("nan"), float("nan")))[1:]
    return f"{text} [{low:.2f}, {high:.2f}]" if low == low and high == high else text
