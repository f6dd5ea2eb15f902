"""The tables of the report, as plain values that the template draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from diascope.audit.parts import Bounds, Localisation
from diascope.audit.results import Comparison, ModelResult, Results
from diascope.report import numbers as n
from diascope.report.charts import Strip, strip

MEASURES = {
    "mass_inside": ("Mass inside", "share of the map that lies on the lesion"),
    "pointing": ("Pointing game", "share of images whose brightest point lies on the lesion"),
    "average_precision": ("Average precision", "how well brightness ranks the lesion's pixels"),
    "iou_otsu": ("IoU at Otsu's threshold", "overlap of the lesion and what stands out in the map"),
    "iou_area": ("IoU at the lesion's area", "overlap of the lesion and as many brightest pixels"),
}
NO_LIMITS = "an interval needs at least two groups of images"
NO_MASK = "no image here has an outline of the lesion"
NOT_COMPARED = "the audit did not compute this difference"


@dataclass(frozen=True)
class Cell:
    """A value with its interval beneath, and why it is missing where it is.

    shade: how dark it lies, 0 to 1; title: what hovering tells; span: over how many columns.
    """

    text: str
    under: str = ""
    why: str = ""
    strong: bool = False
    svg: str = ""
    shade: float | None = None
    title: str = ""
    span: int = 1


@dataclass(frozen=True)
class Row:
    """A row: a heading, perhaps a model's index for its sign, and cells."""

    head: str
    cells: list[Cell]
    under: str = ""
    model: int | None = None


@dataclass(frozen=True)
class Block:
    """Rows under a common heading."""

    rows: list[Row]
    head: str = ""
    under: str = ""


@dataclass(frozen=True)
class Table:
    """A table: column heads (text, model index or None) and blocks of rows."""

    caption: str
    corner: str
    columns: list[tuple[str, int | None]]
    blocks: list[Block] = field(default_factory=list)
    under: str = ""
    index: int | None = None  # of the model that the caption names

    @property
    def reasons(self) -> list[str]:
        """Return why cells are empty, each reason once."""
        cells = (c for block in self.blocks for row in block.rows for c in row.cells)
        return list(dict.fromkeys(c.why for c in cells if c.why))


def cell(bounds: Bounds | None, why: str, signed: bool = False) -> Cell:
    """Return a cell of a value with its interval; a difference is strong if it excludes zero."""
    if bounds is None or not n.defined(bounds[0]):
        return Cell(n.DASH, why=why)
    limits = n.interval(bounds, signed)
    strong = signed and n.excludes_zero(bounds)
    return Cell(n.value_of(bounds, signed), limits or n.DASH, "" if limits else NO_LIMITS, strong)


def pair(comparison: Comparison) -> str:
    """Return the heading of a difference."""
    return f"{comparison.model} {n.MINUS} {comparison.reference}"


def measure_names(measure: str) -> tuple[str, str]:
    """Return a measure's heading and what it means."""
    return MEASURES.get(measure, (measure.replace("_", " ").capitalize(), ""))


def _at(curve: Sequence[Bounds], place: int) -> Bounds | None:
    return curve[place] if place < len(curve) else None


def curve_table(results: Results) -> Table:
    """Return accuracy at each epsilon, and the paired differences."""
    columns: list[tuple[str, int | None]] = [(m.name, i) for i, m in enumerate(results.models)]
    columns += [(pair(c), None) for c in results.comparisons]
    rows = []
    for i, eps in enumerate(results.epsilons):
        cells = [cell(_at(m.curve, i), "not measured at this eps") for m in results.models]
        cells += [cell(_at(c.curve, i), NOT_COMPARED, True) for c in results.comparisons]
        text = n.eps_text(eps, results.norm)
        rows.append(Row(text, cells, "no attack" if eps == 0 else ""))
    corner = f"{n.norm_text(results.norm)} eps"
    return Table("Accuracy under attack at each eps", corner, columns, [Block(rows)])


def localisation_tables(results: Results) -> list[Table]:
    """Return the localisation over all images, and over those that every model gets right."""
    pairs = [("localisation", _with_outline(results))]
    if any(m.localisation_correct for m in results.models):
        every = "every model classifies" if len(results.models) > 1 else "the model classifies"
        pairs.append(("localisation_correct", f"Only images that {every} correctly"))
    return [_localisation(results, name, caption) for name, caption in pairs]


def _with_outline(results: Results) -> str:
    """Return of which images the maps were measured, where these were drawn by lot."""
    counts = {scores.images for m in results.models for scores in m.maps[:1]}
    if not counts or max(counts) in (0, results.data.get("images")):
        return "All images that have an outline"
    return f"{max(counts)} images drawn by lot that have an outline"


def _localisation(results: Results, name: str, caption: str) -> Table:
    columns = ["Value", "On a scale from 0 to 1", "Chance", "Above chance"]
    columns += ["Centred Gaussian", "Above the Gaussian"]
    found: list[Mapping[str, Localisation]] = [getattr(m, name) for m in results.models]
    measures = list(dict.fromkeys(key for each in found for key in each))
    blocks = []
    for measure in sorted(measures, key=_rank):
        rows = [_localised(m, i, found[i].get(measure)) for i, m in enumerate(results.models)]
        for c in results.comparisons:
            if measure in (compared := getattr(c, name)):
                difference = cell(compared[measure], NOT_COMPARED, True)
                rows.append(Row(pair(c), [difference] + [Cell("")] * 5))
        blocks.append(Block(rows, *measure_names(measure)))
    return Table(caption, "", [(c, None) for c in columns], blocks)


def _rank(measure: str) -> int:
    known = list(MEASURES)
    return known.index(measure) if measure in known else len(known)


def _localised(model: ModelResult, index: int, found: Localisation | None) -> Row:
    if found is None:
        return Row(model.name, [Cell(n.DASH, why=NO_MASK)] + [Cell("")] * 5, model=index)
    drawing = strip(Strip(found.value, found.chance[0], found.centre[0], index, model.name))
    cells = [
        cell(found.value, NO_MASK),
        Cell("", svg=drawing),
        cell(found.chance, NO_MASK),
        cell(found.above_chance, NO_MASK, True),
        cell(found.centre, NO_MASK),
        cell(found.above_centre, NO_MASK, True),
    ]
    return Row(model.name, cells, model=index)


def recall_table(results: Results) -> Table:
    """Return the share found of each class."""
    counts = results.data.get("counts") or {}
    names = list(dict.fromkeys([*counts, *(k for m in results.models for k in m.recall)]))
    why = "no image of this class"
    rows = [
        Row(
            name,
            [Cell(str(counts.get(name, n.DASH)))]
            + [cell(m.recall.get(name), why) for m in results.models],
        )
        for name in names
    ]
    columns: list[tuple[str, int | None]] = [("Images", None)]
    columns += [(m.name, i) for i, m in enumerate(results.models)]
    return Table("Share of each class that is recognised (recall)", "Class", columns, [Block(rows)])
