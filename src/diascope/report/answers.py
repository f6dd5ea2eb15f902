"""The answers of the first screen that concern one part of the audit each."""

from __future__ import annotations

from diascope.audit.parts import OperatingPoint
from diascope.audit.results import ModelResult, Results
from diascope.report import numbers as n
from diascope.report.glance import clean_and_attacked, masked, worst_corruption, worst_place


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
        text = meaning if len(results.models) == 1 else f"{n.listed(_names(those))}: {meaning}"
        failed = sorted({o.number for m in those for o in m.masking if o.verdict == "failed"})
        if failed:
            which = "check" if len(failed) == 1 else "checks"
            text += f" ({which} {n.listed([str(k) for k in failed])} failed)"
        told.append(text)
    if not told:
        return ""
    text = "; ".join(told)
    text = (text[:1].upper() + text[1:] if len(results.models) == 1 else text) + "."
    rest = [m for m in results.models if not m.masking]
    return text + (f" Of {n.listed(_names(rest))} nothing was checked." if rest else "")


def detection(results: Results) -> str:
    """Return how many positive images the one model misses, clean and attacked."""
    (model,) = results.models
    clean, attacked = clean_and_attacked(results, model.operating.points if model.operating else [])
    if clean is None:
        return ""
    assert model.operating is not None
    named = n.listed(model.operating.positive, "or") or "the positive class"
    text = (
        f"It misses {_missed(clean)} images of {named}, and calls {clean.false_alarms} of the "
        f"{clean.negatives} others positive."
    )
    if attacked is None:
        return text
    before = model.operating.drawn
    without = "" if before is None else f" ({before.missed} of these without an attack)"
    at = f"{n.norm_text(results.norm)} eps {n.eps_text(attacked.eps, results.norm)}"
    return f"{text} Under attack ({at}) it misses {_missed(attacked)}{without}."


def _missed(point: OperatingPoint) -> str:
    return f"{point.missed} of {point.positives}"


def everyday(results: Results) -> str:
    """Return which everyday corruption costs the one model most accuracy, if any is shown to."""
    (model,) = results.models
    sure = [c for c in model.corruptions if n.has_limits(c.drop) and c.drop[1] > 0]
    worst = max(sure, key=lambda c: c.drop[0], default=worst_corruption(model))
    if worst is None:
        return ""
    change = f"{worst.name.replace('_', ' ')} at severity {worst.severity}"
    lost = f"{n.number(worst.drop[0], 2)} {n.interval(worst.drop)}".strip()
    if n.has_limits(worst.drop) and not sure:
        return f"None of the corruptions is shown to cost accuracy; the worst, {change}: {lost}."
    return f"Worst of the corruptions: {change} costs {lost} of accuracy."


def elsewhere(results: Results) -> str:
    """Return how far the one model's balanced accuracy falls on the images of another hospital."""
    (model,) = results.models
    worst = worst_place(model)
    if worst is None:
        return ""
    name, drop, score = worst
    what = score.replace("_", " ").capitalize()
    if n.has_limits(drop) and drop[1] > 0:
        return f"{what} falls by {n.number(drop[0], 2)} {n.interval(drop)} at {name}."
    if n.has_limits(drop) and drop[2] < 0:
        return f"{what} rises by {n.number(-drop[0], 2)} at {name}."
    change = f"{n.number(-drop[0], 2, True)} {n.interval((-drop[0], -drop[2], -drop[1]), True)}"
    return f"{what} is not shown to change at {name}: {change.strip()}."


def _names(models: list[ModelResult]) -> list[str]:
    return [model.name for model in models]
