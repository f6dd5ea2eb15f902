"""Every audited image as compact columns of JSON, from which the page draws its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diascope.audit.results import Results, Row, RowView
from diascope.report import numbers as n

NEVER = -1  # no epsilon of the grid broke the image
UNKNOWN = -2


def rows(results: Results) -> list[Row]:
    """Return the rows of the audit; those of the shown cases where an audit kept no others."""
    if results.rows or not results.cases:
        return results.rows
    nothing = float("nan")
    return [
        Row(
            case.id,
            case.label,
            case.source,
            "",
            [RowView(v.prediction, v.probability, v.minimal_epsilon, nothing) for v in case.views],
            case=k,
        )
        for k, case in enumerate(results.cases)
    ]


def compact(results: Results) -> dict[str, Any]:
    """Return the rows as columns: words as places in lists, numbers in thousandths.

    Of each model: `p` the prediction, `q` its probability, `e` the place of the minimal epsilon
    in `epsilons` (NEVER, UNKNOWN), `l` the localisation; -1 where a number is undefined.
    """
    found = rows(results)
    names = Words([str(c) for c in results.data.get("classes") or []])
    sources, groups = Words(), Words()
    grid = sorted({0.0, *results.epsilons, *_broken(found)})
    places = {eps: k for k, eps in enumerate(grid)}
    labels = [names.place(row.label) for row in found]
    models = []
    for k in range(len(results.models)):
        views = [row.views[k] if k < len(row.views) else None for row in found]
        models.append(
            {
                "p": [names.place(v.prediction) if v and v.prediction else -1 for v in views],
                "q": [_thousandths(v.probability if v else None) for v in views],
                "e": [_epsilon(v, places) for v in views],
                "l": [_thousandths(v.localisation if v else None) for v in views],
            }
        )
    return {
        "names": [model.name for model in results.models],
        "ids": [row.id for row in found],
        "labels": labels,
        "sources": [sources.place(row.source) for row in found],
        "groups": [groups.place(row.group) for row in found],
        "cases": [-1 if row.case is None else row.case for row in found],
        "models": models,
        "classes": names.all,
        "sourceNames": sources.all,
        "groupNames": groups.all,
        "epsilons": [n.eps_text(eps, results.norm) for eps in grid],
        "values": grid,
    }


class Words:
    """Words, each with its place in a list."""

    def __init__(self, known: Sequence[str] = ()) -> None:
        self.all = list(known)
        self._places = {word: k for k, word in enumerate(self.all)}

    def place(self, word: str) -> int:
        """Return the place of a word, adding it where it is new."""
        if word not in self._places:
            self._places[word] = len(self.all)
            self.all.append(word)
        return self._places[word]


def _broken(found: Sequence[Row]) -> set[float]:
    return {v.minimal_epsilon for row in found for v in row.views if n.defined(v.minimal_epsilon)}


def _thousandths(value: float | None) -> int:
    return round(1000 * value) if n.defined(value) else -1


def _epsilon(view: RowView | None, places: dict[float, int]) -> int:
    if view is None:
        return UNKNOWN
    if n.defined(view.minimal_epsilon):
        return places[view.minimal_epsilon]
    return NEVER if view.minimal_epsilon == float("inf") else UNKNOWN
