"""The operating point and the confusion matrices: which errors, and how many."""

from __future__ import annotations

from dataclasses import dataclass, replace

from diascope.audit.parts import Confusion, OperatingPoint
from diascope.audit.results import ModelResult, Results
from diascope.report import numbers as n
from diascope.report.charts import Strip, strip
from diascope.report.tables import Block, Cell, Row, Table, cell, pair

LARGEST = 12  # classes of a matrix; above, the most frequent confusions are listed
WHY = "no such image"
NO_PPV = "no image was called so"


def operating_table(results: Results) -> Table | None:
    """Return sensitivity and specificity, clean and attacked; None where not measured."""
    blocks = []
    for i, model in enumerate(results.models):
        if model.operating is None or not model.operating.points:
            continue
        points = sorted(model.operating.points, key=lambda p: p.eps)
        rows = [_row(results, i, p) for p in points]
        if model.operating.drawn is not None:
            head = "no attack, the images drawn for it"
            rows.insert(1, replace(_row(results, i, model.operating.drawn), head=head))
        if model.operating.validation is not None:
            chosen = _row(results, i, model.operating.validation)
            rows.insert(0, replace(chosen, head="where it was chosen"))
        under = f"threshold {n.number(model.operating.threshold)}"
        if n.defined(model.operating.prevalence):
            under += f"; PPV and NPV where {n.number(model.operating.prevalence, 2)} are positive"
        blocks.append(Block(rows, model.name, under))
    if not blocks:
        return None
    columns = ["Sensitivity", "0 to 1", "Specificity", "0 to 1", "Missed", "False alarms"]
    if any(n.defined(p.ppv[0]) or n.defined(p.npv[0]) for p in _points(results)):
        columns += ["PPV", "NPV"]
    return Table(
        "At the operating point", "", [(c, None) for c in columns], blocks, "95% intervals"
    )


def halved(results: Results) -> bool:
    """Tell whether what is attacked was drawn with as many positive images as negative ones."""
    return any(m.operating is not None and m.operating.drawn is not None for m in results.models)


def _row(results: Results, index: int, point: OperatingPoint) -> Row:
    head = f"attack, eps {n.eps_text(point.eps, results.norm)}" if point.eps else "no attack"
    cells = [
        cell(point.sensitivity, WHY),
        Cell("", svg=_strip(point.sensitivity, index, "sensitivity")),
        cell(point.specificity, WHY),
        Cell("", svg=_strip(point.specificity, index, "specificity")),
        Cell(str(point.missed), f"of {point.positives}"),
        Cell(str(point.false_alarms), f"of {point.negatives}"),
    ]
    if any(n.defined(p.ppv[0]) or n.defined(p.npv[0]) for p in _points(results)):
        cells += [cell(point.ppv, NO_PPV), cell(point.npv, NO_PPV)]
    return Row(head, cells)


def _points(results: Results) -> list[OperatingPoint]:
    return [p for m in results.models if m.operating is not None for p in m.operating.points]


def operating_differences(results: Results) -> Table | None:
    """Return the paired differences at the operating points; None where none were computed."""
    blocks = []
    for comparison in results.comparisons:
        rows = [
            Row(
                f"attack, eps {n.eps_text(each.eps, results.norm)}" if each.eps else "no attack",
                [
                    cell(each.sensitivity, WHY, True),
                    cell(each.specificity, WHY, True),
                    Cell(f"{each.positives} and {each.negatives}"),
                ],
            )
            for each in comparison.operating
        ]
        if rows:
            blocks.append(Block(rows, pair(comparison)))
    if not blocks:
        return None
    columns = ["Sensitivity", "Specificity", "Positive and negative images"]
    under = "each model at its own threshold; 95% intervals"
    return Table("Paired differences", "", [(c, None) for c in columns], blocks, under)


def _strip(bounds: tuple[float, float, float], index: int, name: str) -> str:
    return strip(Strip(bounds, float("nan"), float("nan"), index, name), width=110)


def rules(results: Results) -> list[str]:
    """Return how each threshold was chosen; once where all were chosen alike."""
    told: dict[str, list[str]] = {}
    for model in results.models:
        if model.operating is not None:
            text = f"{model.operating.rule}, chosen on {model.operating.chosen_on}"
            told.setdefault(text, []).append(model.name)
    if len(told) == 1:
        return [f"The threshold is {next(iter(told))}."]
    return [f"{n.listed(names)}: {text}." for text, names in told.items()]


@dataclass(frozen=True)
class Matrix:
    """A confusion matrix of one model at one epsilon, or its most frequent confusions."""

    title: str
    index: int
    names: list[str]
    rows: list[list[Cell]]
    pairs: list[tuple[str, str, int, int]]  # true class, called, images, of so many


def matrices(results: Results) -> list[Matrix]:
    """Return the confusion matrices of every model, in their order, clean first."""
    classes = [str(c) for c in results.data.get("classes") or []]
    return [
        _matrix(results, model, i, each, classes)
        for i, model in enumerate(results.models)
        for each in sorted(model.confusion, key=lambda c: c.eps)
        if each.counts
    ]


def _matrix(
    results: Results, model: ModelResult, index: int, found: Confusion, classes: list[str]
) -> Matrix:
    names = (
        classes if len(classes) == len(found.counts) else [str(k) for k in range(len(found.counts))]
    )
    at = f"attack, eps {n.eps_text(found.eps, results.norm)}" if found.eps else "no attack"
    title = f"{model.name}, {at}" if len(results.models) > 1 else at.capitalize()
    if len(names) > LARGEST:
        return Matrix(title, index, names, [], _pairs(found.counts, names))
    rows = []
    for i, counts in enumerate(found.counts):
        total = sum(counts)
        shares = [count / total if total else 0.0 for count in counts]
        rows.append(
            [
                Cell(
                    str(count),
                    strong=i == k,
                    shade=shares[k],
                    title=f"{names[i]} called {names[k]}: {count} of {total}",
                )
                for k, count in enumerate(counts)
            ]
        )
    return Matrix(title, index, names, rows, [])


def _pairs(counts: list[list[int]], names: list[str]) -> list[tuple[str, str, int, int]]:
    found = [
        (names[i], names[k], count, sum(row))
        for i, row in enumerate(counts)
        for k, count in enumerate(row)
        if i != k and count
    ]
    return sorted(found, key=lambda pair: -pair[2])[:LARGEST]
