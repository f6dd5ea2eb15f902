"""Accuracy by class, source and attribute, and in other hospitals: dots on one scale."""

from __future__ import annotations

from dataclasses import replace

from diascope.audit.parts import GroupScore
from diascope.audit.results import ModelResult, Results
from diascope.report import numbers as n
from diascope.report.charts import Dots, dots
from diascope.report.tables import Block, Cell, Row, Table, cell

MOST = 24  # values of an attribute that are shown; of more, those where most is lost
WHY = "too few images"


def group_tables(results: Results) -> list[Table]:
    """Return a table for each attribute, a block a value where models are compared."""
    attributes = list(dict.fromkeys(g.attribute for m in results.models for g in m.group_scores))
    return [_attribute(results, attribute) for attribute in attributes]


def _attribute(results: Results, attribute: str) -> Table:
    found: dict[str, list[tuple[int, GroupScore]]] = {}
    for i, model in enumerate(results.models):
        for score in model.group_scores:
            if score.attribute == attribute:
                found.setdefault(score.value, []).append((i, score))
    values = list(found)
    if len(values) > MOST:
        values = sorted(values, key=lambda v: min(s.accuracy[0] for _, s in found[v]))[:MOST]
    alone = len(results.models) == 1
    blocks = []
    if alone:
        blocks = [Block([_row(v, None, s) for v in values for _, s in found[v]])]
    else:
        for value in values:
            rows = [_row(results.models[i].name, i, s) for i, s in found[value]]
            first = found[value][0][1]
            under = "; ".join(filter(None, (_size(first), first.note)))
            blocks.append(Block(rows, value or n.DASH, under))
    columns = ["Accuracy", "On a scale from 0 to 1", "Less the others", "Under attack"]
    note = f"the {MOST} lowest of {len(found)}" if len(found) > len(values) else ""
    caption = f"By {attribute.replace('_', ' ')}"
    return Table(caption, "", [(c, None) for c in columns], blocks, note)


def _row(head: str, index: int | None, score: GroupScore) -> Row:
    drawing = dots(Dots(score.accuracy, score.attacked, index or 0, head))
    cells = [
        cell(score.accuracy, WHY),
        Cell("", svg=drawing),
        _rest(score),
        cell(score.attacked, "not attacked"),
    ]
    under = "; ".join(filter(None, (_size(score), score.note))) if index is None else ""
    return Row(head or n.DASH, cells, under, index)


def _rest(score: GroupScore) -> Cell:
    """Return the difference from the others, strong if it holds for all values at once."""
    found = cell(score.rest, WHY, True)
    if not n.has_limits(score.rest_corrected):
        return found
    within = (
        f"; of the same class {n.ranged(score.within, True)}" if n.has_limits(score.within) else ""
    )
    title = f"for all values at once {n.interval(score.rest_corrected, True)}{within}"
    return replace(found, strong=n.excludes_zero(score.rest_corrected), title=title)


def _size(score: GroupScore) -> str:
    text = f"{score.images:,} images".replace(",", "\u202f")
    return text + (f" of {score.groups}" if score.groups != score.images else "")


def elsewhere_table(results: Results) -> Table | None:
    """Return the scores at home and in each other hospital; None where not measured."""
    if not any(m.elsewhere for m in results.models):
        return None
    blocks = []
    alone = len(results.models) == 1
    for i, model in enumerate(results.models):
        if model.elsewhere:
            blocks.append(Block(_places(results, model, i), "" if alone else model.name))
    columns = ["Accuracy", "On a scale from 0 to 1", "Lost", "Balanced accuracy", "Lost"]
    columns += ["AUROC", "Lost", "Under attack"]
    return Table("Here and elsewhere", "", [(c, None) for c in columns], blocks, "95% intervals")


def _places(results: Results, model: ModelResult, index: int) -> list[Row]:
    nothing = (float("nan"),) * 3
    home = next((e.here for e in model.elsewhere if e.here), model.scores)
    here = home.get("accuracy", nothing)
    attacked = next(
        (
            b
            for e, b in zip(results.epsilons, model.curve, strict=False)
            if e > 0 and e == results.reference_eps
        ),
        nothing,
    )
    rows = [
        Row(
            str(results.data.get("name") or "here"),
            [
                cell(here, WHY),
                Cell("", svg=dots(Dots(here, attacked, index, "here"))),
                Cell(""),
                cell(home.get("balanced_accuracy"), WHY),
                Cell(""),
                cell(home.get("auroc"), WHY),
                Cell(""),
                cell(attacked, "not attacked"),
            ],
            "here",
        )
    ]
    for place in model.elsewhere:
        there = place.scores.get("accuracy", nothing)
        cells = [
            cell(there, WHY),
            Cell("", svg=dots(Dots(there, place.attacked, index, place.name))),
            cell(place.drop.get("accuracy"), WHY, True),
            cell(place.scores.get("balanced_accuracy"), WHY),
            cell(place.drop.get("balanced_accuracy"), WHY, True),
            cell(place.scores.get("auroc"), WHY),
            cell(place.drop.get("auroc"), WHY, True),
            cell(place.attacked, "not attacked"),
        ]
        size = f"{place.images} images of {place.groups}"
        if place.missing:
            size += f"; no {n.listed(place.missing, 'or')}"
        rows.append(Row(place.name, cells, size))
    return rows
