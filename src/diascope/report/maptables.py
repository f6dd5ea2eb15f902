"""The tables of every explanation method: lesion, faithfulness, steadiness, sanity."""

from __future__ import annotations

from collections.abc import Sequence

from diascope.audit.parts import MapScores
from diascope.audit.results import ModelResult, Results
from diascope.evaluation.sanity import THRESHOLD
from diascope.report import numbers as n
from diascope.report.tables import MEASURES, Block, Cell, Row, Table, cell, measure_names

DIRECTIONS = {
    "insertion": ("Insertion", "higher is better", "the target's probability as hot pixels come"),
    "deletion": ("Deletion", "lower is better", "the same as hot pixels go"),
    "road": ("ROAD", "higher is better", "lost with hot pixels rather than cold ones"),
    "infidelity": ("Infidelity", "lower is better", "error of the map as a forecast of the score"),
    "gini": ("Gini index", "higher is sharper", ""),
    "entropy": ("Entropy", "lower is sharper", ""),
    "high_frequency": ("High frequencies", "lower is less noisy", ""),
    "total_variation": ("Total variation", "lower is less noisy", ""),
    "colour_variation": ("Colour variation", "higher is better", "evidence where colour varies"),
    "completeness": ("Completeness", "lower is better", "how far its sum is from the score"),
}
AGREEMENT = {"spearman": "rank correlation", "ssim": "SSIM", "top_overlap": "overlap at the top"}
MISSING = "not measured for this method"


def map_tables(results: Results) -> list[Table]:
    """Return the tables that compare methods; empty where no stage measured maps."""
    makers = (_localisation, _faithfulness, _measures, _steadiness, _sanity)
    tables = [maker(results) for maker in makers]
    return [table for table in tables if table.blocks]


def _methods(models: Sequence[ModelResult]) -> list[str]:
    return list(dict.fromkeys(scores.name for m in models for scores in m.maps))


def _columns(results: Results) -> list[tuple[str, int | None]]:
    return [(name.replace("_", " "), None) for name in _methods(results.models)]


def _of(results: Results, model: ModelResult) -> list[MapScores | None]:
    found = {scores.name: scores for scores in model.maps}
    return [found.get(name) for name in _methods(results.models)]


def _head(results: Results, model: ModelResult) -> str:
    return model.name if len(results.models) > 1 else ""


def _localisation(results: Results) -> Table:
    blocks = []
    for model in results.models:
        found = _of(results, model)
        keys = {key for s in found if s is not None for key in s.localisation}
        rows = []
        for key in sorted(keys, key=lambda k: list(MEASURES).index(k) if k in MEASURES else 99):
            bounds = [s.localisation.get(key) if s is not None else None for s in found]
            cells = [cell(b.above_centre if b else None, MISSING, True) for b in bounds]
            rows.append(Row(measure_names(key)[0], cells))
        if rows:
            blocks.append(Block(rows, _head(results, model)))
    return Table(
        "Above the centred Gaussian, each method",
        "",
        _columns(results),
        blocks,
        "above 0 is better",
    )


def _faithfulness(results: Results) -> Table:
    blocks = []
    for model in results.models:
        found = _of(results, model)
        keys = list(dict.fromkeys(k for s in found if s is not None for k in s.faithfulness))
        rows = []
        for key in sorted(keys, key=_rank):
            each = [s.faithfulness.get(key) if s is not None else None for s in found]
            rows.append(
                Row(
                    _named(key)[0],
                    [cell(f.value if f else None, MISSING) for f in each],
                    ", ".join(filter(None, _named(key)[1:])),
                )
            )
            over = [cell(f.over_random if f else None, MISSING, True) for f in each]
            centre = [cell(f.over_centre if f else None, MISSING, True) for f in each]
            rows.append(Row("better than random by", over))
            rows.append(Row("better than the middle by", centre))
        if rows:
            blocks.append(Block(rows, _head(results, model)))
    return Table("Faithfulness", "", _columns(results), blocks, "above 0: better, either way")


def _measures(results: Results) -> Table:
    blocks = []
    for model in results.models:
        found = _of(results, model)
        known = [s for s in found if s is not None]
        told = {k for s in known for k in s.faithfulness}  # in the table before
        keys = {k for s in known for k in s.measures} - told
        rows = [
            Row(
                _named(key)[0],
                [cell(s.measures.get(key) if s is not None else None, MISSING) for s in found],
                ", ".join(filter(None, _named(key)[1:])),
            )
            for key in sorted(keys, key=_rank)
        ]
        if rows:
            blocks.append(Block(rows, _head(results, model)))
    return Table("Other measures", "", _columns(results), blocks)


def _rank(key: str) -> int:
    return list(DIRECTIONS).index(key) if key in DIRECTIONS else len(DIRECTIONS)


def _named(key: str) -> tuple[str, str, str]:
    return DIRECTIONS.get(key, (key.replace("_", " ").capitalize(), "", ""))


def _steadiness(results: Results) -> Table:
    blocks = []
    for model in results.models:
        found = _of(results, model)
        keys = list(dict.fromkeys((t.against, t.measure) for s in found if s for t in s.steadiness))
        rows = []
        for against, measure in keys:
            cells = []
            for scores in found:
                at = {(t.against, t.measure): t.value for t in scores.steadiness} if scores else {}
                cells.append(cell(at.get((against, measure)), MISSING))
            rows.append(Row(_against(against), cells, AGREEMENT.get(measure, measure)))
        if rows:
            blocks.append(Block(rows, _head(results, model)))
    return Table("How alike maps stay", "", _columns(results), blocks, "1: the same")


def _against(against: str) -> str:
    if against.startswith("noise"):
        return f"under {against}"
    return "under attack" if against == "attack" else f"beside {against}"


def _sanity(results: Results) -> Table:
    blocks = []
    for model in results.models:
        found = _of(results, model)
        run = [s for s in found if s is not None and s.sanity]
        if not run:
            continue
        measure = next(iter(run[0].sanity[0].agreement), "")
        rows = []
        for place, step in enumerate(run[0].sanity):
            cells = [_step(scores, place, measure) for scores in found]
            rows.append(Row(f"to {step.layers}", cells, "random"))
        rows.append(Row("Verdict", [_verdict(scores) for scores in found]))
        under = AGREEMENT.get(measure, measure)
        blocks.append(
            Block(rows, _head(results, model) or under, under if _head(results, model) else "")
        )
    return Table(
        "Sanity: how alike the map is when layers are random, from the head",
        "",
        _columns(results),
        blocks,
        _asked(results),
    )


def _asked(results: Results) -> str:
    run = [s for m in results.models for scores in m.maps for s in scores.sanity]
    images = sorted({step.images for step in run if step.images})
    on = f"; on {n.listed([str(k) for k in images])} images" if images else ""
    return (
        f"it ought to fall to 0, and passes where the interval ends at {THRESHOLD:g} or below{on}"
    )


def _step(scores: MapScores | None, place: int, measure: str) -> Cell:
    if scores is None or place >= len(scores.sanity):
        return Cell(n.DASH, why=MISSING)
    step = scores.sanity[place]
    return Cell(n.number(step.agreement.get(measure), 2), n.interval(step.bounds.get(measure)))


def _verdict(scores: MapScores | None) -> Cell:
    if scores is None or not scores.sanity:
        return Cell(n.DASH, why=MISSING)
    if scores.passed is None:
        return Cell("? undecided")
    return Cell("✓ passed" if scores.passed else "✗ failed", strong=not scores.passed)


def left_out(results: Results) -> list[str]:
    """Return the methods that do not explain a model, and why."""
    told: dict[str, list[str]] = {}
    for model in results.models:
        for scores in model.maps:
            if scores.left_out:
                reason = f"{scores.name.replace('_', ' ')}: {scores.left_out}"
                told.setdefault(reason, []).append(model.name)
    if len(results.models) == 1:
        return list(told)
    return [f"{n.listed(names)}, {reason}" for reason, names in told.items()]
