"""The everyday corruptions: a table of accuracies, shaded by what is lost."""

from __future__ import annotations

from diascope.audit.parts import CorruptionScore
from diascope.audit.results import Comparison, ModelResult, Results
from diascope.report import numbers as n
from diascope.report.glance import reference, reference_text
from diascope.report.tables import Block, Cell, Row, Table, cell, pair


def corruption_tables(results: Results) -> list[Table]:
    """Return a table a model: corruptions down, severities across; none where not measured."""
    return [_table(results, m) for m in results.models if m.corruptions]


def _table(results: Results, model: ModelResult) -> Table:
    severities = sorted({c.severity for c in model.corruptions})
    names = list(dict.fromkeys(c.name for c in model.corruptions))
    at = {(c.name, c.severity): c for c in model.corruptions}
    rows = []
    for name in sorted(names, key=lambda name: -_most(at, name, severities)):
        found = [at.get((name, s)) for s in severities]
        worst = max((c for c in found if c), key=lambda c: _known(c.drop[0]))
        cells = [_cell(score) for score in found]
        drop = Cell(
            n.number(worst.drop[0], 2), n.interval(worst.drop), strong=n.excludes_zero(worst.drop)
        )
        rows.append(Row(name.replace("_", " "), [*cells, drop]))
    blocks = [Block(rows)]
    if beside := _beside(results, model, len(severities)):
        blocks.append(Block(beside, "Beside them"))
    columns: list[tuple[str, int | None]] = [(str(s), None) for s in severities]
    columns.append(("Largest drop", None))
    place = next((i for i, m in enumerate(results.models) if m is model), 0)
    caption = model.name if len(results.models) > 1 else "Accuracy at each severity"
    images = max(c.images for c in model.corruptions)
    index = place if len(results.models) > 1 else None
    return Table(caption, "Severity", columns, blocks, f"{images} images", index)


def corruption_differences(results: Results) -> list[Table]:
    """Return a table of paired differences in accuracy for each comparison that has them."""
    return [_differences(c) for c in results.comparisons if c.corruptions]


def _differences(comparison: Comparison) -> Table:
    severities = sorted({each.severity for each in comparison.corruptions})
    at = {(each.name, each.severity): each.accuracy for each in comparison.corruptions}
    rows = [
        Row(
            name.replace("_", " "),
            [cell(at.get((name, s)), "not measured at this severity", True) for s in severities],
        )
        for name in sorted({each.name for each in comparison.corruptions})
    ]
    columns: list[tuple[str, int | None]] = [(str(s), None) for s in severities]
    images = max(each.images for each in comparison.corruptions)
    under = f"paired differences in accuracy on {images} images"
    return Table(pair(comparison), "Severity", columns, [Block(rows)], under)


def _beside(results: Results, model: ModelResult, span: int) -> list[Row]:
    """Return rows of the accuracy of the same images as they are, and of that under attack.

    The loss under attack is counted from the curve without one: of the images that it is of.
    """
    place, first = reference(results), model.corruptions[0]
    clean = first.accuracy[0] + first.drop[0]  # of the images that are changed
    rows = []
    if n.defined(clean):
        rows.append(Row("as they are", [_wide(clean, "", 0.0, span), Cell("")]))
    if place is not None and place < len(model.curve) and n.defined(model.curve[place][0]):
        found = model.curve[place]
        lost = _known(model.curve[0][0] - found[0])
        cells = [_wide(found[0], n.interval(found), lost, span), Cell(n.number(lost, 2))]
        rows.append(Row(f"attack, {reference_text(results)}", cells))
    return rows


def _wide(value: float, limits: str, lost: float, span: int) -> Cell:
    return Cell(f"{n.number(value, 2)} {limits}".strip(), shade=_shade(lost), span=span)


def _cell(score: CorruptionScore | None) -> Cell:
    if score is None or not n.defined(score.accuracy[0]):
        return Cell(n.DASH, why="not measured at this severity")
    title = f"accuracy {n.ranged(score.accuracy)}, drop {n.ranged(score.drop)}"
    return Cell(n.number(score.accuracy[0], 2), shade=_shade(score.drop[0]), title=title)


def _shade(lost: float) -> float:
    """Return how dark a loss lies: fully where half of all images are lost."""
    return min(max(_known(lost), 0.0) / 0.5, 1.0)


def _most(at: dict[tuple[str, int], CorruptionScore], name: str, severities: list[int]) -> float:
    return max(_known(at[name, s].drop[0]) for s in severities if (name, s) in at)


def _known(value: float) -> float:
    return value if n.defined(value) else 0.0
