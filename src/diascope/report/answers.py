"""The answers of the first screen that concern one part of the audit each."""

from __future__ import annotations

from diascope.audit.parts import OperatingPoint
from diascope.audit.results import ModelResult, Results
from diascope.report import numbers as n
from diascope.report.glance import clean_and_attacked, masked, worst_corruption, worst_place

MANY = 3


def belief(results: Results) -> str:
    """Return whether the robustness figures can be believed, from the checks on masking."""
    checked = [m for m in results.models if m.masking]
    told = []
    words = {
        "yes": "no sign of masked gradients",
        "no": "the figures under attack are too good to be true",
        "undecided": "too many checks are undecided to believe or doubt it",
    }
    for word, meaning in words.items():
        those = [m for m in checked if masked(m.masking) == word]
        if not those:
            continue
        text = meaning if len(checked) == 1 else f"{n.listed(_names(those))}: {meaning}"
        failed = sorted({o.number for m in those for o in m.masking if o.verdict == "failed"})
        if failed:
            which = "check" if len(failed) == 1 else "checks"
            text += f" ({which} {n.listed([str(k) for k in failed])} failed)"
        told.append(text)
    if not told:
        return ""
    text = "; ".join(told)
    return (text[:1].upper() + text[1:] if len(checked) == 1 else text) + "."


def detection(results: Results) -> str:
    """Return how many positive images are missed, clean and attacked."""
    told = []
    for model in results.models:
        if model.operating is None:
            continue
        clean, attacked = clean_and_attacked(model.operating.points)
        name = f"{model.name}: " if len(results.models) > 1 else ""
        if clean is not None:
            told.append(f"{name}{_missed(clean)}" + (f", {_then(attacked)}" if attacked else ""))
    if not told:
        return ""
    named = n.listed(results.positive, "or") or "the positive class"
    if len(told) > MANY:
        return ""
    return f"Of the images of {named}, it misses " + "; ".join(told) + "."


def _missed(point: OperatingPoint) -> str:
    return f"{point.missed} of {point.positives}"


def _then(point: OperatingPoint) -> str:
    return f"and {_missed(point)} under attack"


def everyday(results: Results) -> str:
    """Return which everyday corruption costs most accuracy."""
    told = []
    for model in results.models:
        worst = worst_corruption(model)
        if worst is None:
            continue
        name = f"{model.name}: " if len(results.models) > 1 else ""
        change = f"{worst.name.replace('_', ' ')} at severity {worst.severity}"
        told.append(f"{name}{change} costs {n.number(worst.drop[0], 2)} {n.interval(worst.drop)}")
    if not told or len(told) > MANY:
        return ""
    text = "; ".join(each.strip() for each in told)
    start = "Worst of the corruptions" if len(told) == 1 else "Worst of the corruptions for each"
    return f"{start}: {text} of accuracy."


def elsewhere(results: Results) -> str:
    """Return how far accuracy falls on the images of other hospitals."""
    told = [each for model in results.models if (each := _moved(results, model))]
    return f"Accuracy {'; '.join(told)}." if told and len(told) <= MANY else ""


def _moved(results: Results, model: ModelResult) -> str:
    worst = worst_place(model)
    if worst is None:
        return ""
    name, drop = worst
    of = f" of {model.name}" if len(results.models) > 1 else ""
    if n.has_limits(drop) and drop[1] > 0:
        return f"{of} falls by {n.number(drop[0], 2)} {n.interval(drop)} at {name}".strip()
    if n.has_limits(drop) and drop[2] < 0:
        return f"{of} rises by {n.number(-drop[0], 2)} at {name}".strip()
    return f"{of} is not shown to change at {name}".strip()


def _names(models: list[ModelResult]) -> list[str]:
    return [model.name for model in models]
