"""The few numbers that matter, each with its interval, chosen by what was measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from diascope.audit.checks.masking import believed
from diascope.audit.parts import (
    Bounds,
    CorruptionScore,
    Elsewhere,
    MaskingOutcome,
    OperatingDifference,
    OperatingPoint,
)
from diascope.audit.results import Comparison, ModelResult, Results
from diascope.report import numbers as n
from diascope.report.tables import Cell, cell

MOST = 6  # numbers that stand large on the first screen
WORDS = ("AUROC", "Believable")  # what else is told in words, where there are more
NOT_MEASURED = "not measured"
At = TypeVar("At", OperatingPoint, OperatingDifference)


@dataclass(frozen=True)
class Figure:
    """A number of the first screen: a cell a model, and where the page tells more."""

    label: str
    under: str
    href: str
    cells: list[Cell]


def glance(results: Results) -> list[Figure]:
    """Return the figures of the first screen, those that no model has left out."""
    found = [
        _accuracy(results),
        _auroc(results),
        _attacked(results),
        _detected(results),
        _everyday(results),
        _elsewhere(results),
        _looks(results),
        _believed(results),
    ]
    return [f for f in found if any(c.text != n.DASH for c in f.cells)]


def large(figures: Sequence[Figure]) -> list[Figure]:
    """Return those that stand large where there is but one model, at most `MOST`."""
    if len(figures) <= MOST:
        return list(figures)
    return [f for f in figures if f.label not in WORDS][:MOST]


def reference(results: Results) -> int | None:
    """Return the place of the reference epsilon in the grid; None where nothing is attacked."""
    places = [i for i, e in enumerate(results.epsilons) if e > 0]
    if not places:
        return None
    wanted = results.reference_eps
    if wanted > 0:
        return min(places, key=lambda i: abs(results.epsilons[i] - wanted))
    return places[len(places) // 2]


def reference_text(results: Results) -> str:
    """Return the reference epsilon in words, `L2 eps 0.5`; empty where nothing is attacked."""
    place = reference(results)
    if place is None:
        return ""
    return f"{n.norm_text(results.norm)} eps {n.eps_text(results.epsilons[place], results.norm)}"


def worst_corruption(model: ModelResult) -> CorruptionScore | None:
    """Return the corruption, at the worst severity measured, that costs most accuracy."""
    known = [c for c in model.corruptions if n.defined(c.drop[0])]
    return max(known, key=lambda c: c.drop[0], default=None)


def worst_place(model: ModelResult) -> tuple[str, Bounds, str] | None:
    """Return the other hospital where accuracy falls most, how far, and which accuracy.

    Balanced accuracy, which another mix of classes does not move; plain where it is not defined.
    """
    known = [(e.name, e.drop[score], score) for e in model.elsewhere if (score := _fair(e))]
    return max(known, key=lambda item: item[1][0], default=None)


def _fair(place: Elsewhere) -> str:
    """Return the accuracy to hold against that at home; empty where none is defined."""
    scores = ("balanced_accuracy", "accuracy")
    return next((s for s in scores if s in place.drop and n.defined(place.drop[s][0])), "")


def clean_and_attacked(
    results: Results, points: Sequence[OperatingPoint]
) -> tuple[OperatingPoint | None, OperatingPoint | None]:
    """Return the operating point without an attack, and that nearest the reference epsilon."""
    clean = next((p for p in points if p.eps == 0), None)
    return clean, at_reference(results, [p for p in points if p.eps > 0])


def at_reference(results: Results, measured: Sequence[At]) -> At | None:
    """Return what was measured nearest to the reference epsilon; None where nothing was."""
    place = reference(results)
    wanted = results.reference_eps if place is None else results.epsilons[place]
    return min(measured, key=lambda each: abs(each.eps - wanted), default=None)


def masked(outcomes: Sequence[MaskingOutcome]) -> str:
    """Return whether the robustness figure can be believed, in a word; empty if not checked."""
    if not outcomes:
        return ""
    return {True: "yes", False: "no", None: "undecided"}[believed(list(outcomes))]


def _each(results: Results, read: Callable[[ModelResult], Cell]) -> list[Cell]:
    return [read(model) for model in results.models]


def _score(results: Results, key: str, label: str, under: str) -> Figure:
    cells = _each(results, lambda m: cell(m.scores.get(key), NOT_MEASURED))
    return Figure(label, under, "#robustness", cells)


def _accuracy(results: Results) -> Figure:
    majority = results.data.get("majority")
    under = f"commonest class {n.number(majority, 2)}" if n.defined(majority) else ""
    return _score(results, "accuracy", "Accuracy", under)


def _auroc(results: Results) -> Figure:
    return _score(results, "auroc", "AUROC", "chance 0.50")


def _attacked(results: Results) -> Figure:
    place = reference(results)
    cells = _each(
        results,
        lambda m: cell(
            m.curve[place] if place is not None and place < len(m.curve) else None, NOT_MEASURED
        ),
    )
    return Figure("Under attack", f"accuracy, {reference_text(results)}", "#robustness", cells)


def _detected(results: Results) -> Figure:
    def read(model: ModelResult) -> Cell:
        if model.operating is None:
            return Cell(n.DASH, why=NOT_MEASURED)
        clean, attacked = clean_and_attacked(results, model.operating.points)
        if clean is None or attacked is None:
            one = clean or attacked
            return cell(one.sensitivity if one else None, NOT_MEASURED)
        before = model.operating.unattacked  # on the images that are attacked
        change = f"{n.number(before.sensitivity[0], 2)} → {n.number(attacked.sensitivity[0], 2)}"
        return Cell(change, n.interval(attacked.sensitivity))

    named = n.listed(results.positive, "or")
    points = [p for m in results.models if m.operating for p in m.operating.points if p.eps > 0]
    shown = at_reference(results, points)
    at = f", attacked at eps {n.eps_text(shown.eps, results.norm)}" if shown else ""
    under = f"for {named}{at}" if named else at.removeprefix(", ")
    return Figure("Sensitivity", under, "#operating", _each(results, read))


def _everyday(results: Results) -> Figure:
    def read(model: ModelResult) -> Cell:
        worst = worst_corruption(model)
        if worst is None:
            return Cell(n.DASH, why=NOT_MEASURED)
        told = f"worst: {worst.name.replace('_', ' ')}, severity {worst.severity}"
        limits = n.interval(worst.accuracy)
        return Cell(n.value_of(worst.accuracy), f"{limits} {told}".strip())

    return Figure("Everyday images", "accuracy", "#everyday", _each(results, read))


def _elsewhere(results: Results) -> Figure:
    def read(model: ModelResult) -> Cell:
        worst = worst_place(model)
        if worst is None:
            return Cell(n.DASH, why=NOT_MEASURED)
        name, (value, low, high), _ = worst
        change = (-value, -high, -low)
        return Cell(n.value_of(change, True), f"{n.interval(change, True)} at {name}".strip())

    scores = [worst[2] for m in results.models if (worst := worst_place(m))]
    under = f"change in {'balanced ' if 'balanced_accuracy' in scores else ''}accuracy"
    return Figure("Elsewhere", under, "#elsewhere", _each(results, read))


def _looks(results: Results) -> Figure:
    def read(model: ModelResult) -> Cell:
        found = model.localisation.get("average_precision")
        return cell(found.above_centre if found else None, NOT_MEASURED, True)

    under = "its average precision, less that of a centred blob"
    return Figure("Map on the lesion", under, "#maps", _each(results, read))


def _believed(results: Results) -> Figure:
    def read(model: ModelResult) -> Cell:
        word = masked(model.masking)
        if not word:
            return Cell(n.DASH, why=NOT_MEASURED)
        passed = sum(o.verdict == "passed" for o in model.masking)
        sign = {"yes": "✓", "no": "✗", "undecided": "?"}[word]
        return Cell(f"{sign} {word}", f"{passed} of {len(model.masking)} checks passed")

    under = "can the attack figures be believed?"
    return Figure("Believable", under, "#masking", _each(results, read))


def differing(results: Results, comparison: Comparison) -> list[Cell]:
    """Return the paired differences of the figures of `glance` that have one."""
    place = reference(results)
    at = comparison.curve[place] if place is not None and place < len(comparison.curve) else None
    attacked = [each for each in comparison.operating if each.eps > 0]
    decided = at_reference(results, attacked or comparison.operating)
    known = {
        "Accuracy": comparison.scores.get("accuracy"),
        "AUROC": comparison.scores.get("auroc"),
        "Under attack": at,
        "Sensitivity": decided.sensitivity if decided else None,
        "Everyday images": _same_corruption(results, comparison),
        "Map on the lesion": comparison.localisation.get("average_precision"),
    }
    why = "the audit did not compute this difference"
    cells = {label: cell(bounds, why, True) for label, bounds in known.items()}
    if decided is not None and decided.eps > 0 and cells["Sensitivity"].text != n.DASH:
        found = cells["Sensitivity"]
        cells["Sensitivity"] = replace(found, under=f"{found.under} attacked")
    missing = cell(None, why)
    return [cells.get(figure.label, missing) for figure in glance(results)]


def _same_corruption(results: Results, comparison: Comparison) -> Bounds | None:
    """Return the difference under the worst corruption, where it is the same for both models."""
    both = (comparison.model, comparison.reference)
    worst = [worst_corruption(model) for model in results.models if model.name in both]
    kinds = {(score.name, score.severity) for score in worst if score is not None}
    if len(kinds) > 1 or None in worst:
        return None
    at = {(each.name, each.severity): each.accuracy for each in comparison.corruptions}
    return next((at[kind] for kind in kinds if kind in at), None)
