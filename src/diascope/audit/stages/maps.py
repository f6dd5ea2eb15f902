"""What the maps of several methods say of a model, and whether they can be read at all."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np

from diascope.audit.bench import Bench, Rows
from diascope.audit.mapbeside import Column, attack_passes, attacked_images, uninformed
from diascope.audit.mapmethods import (
    FAITHFUL,
    Parts,
    faithful_passes,
    methods,
    misfit,
    parts_of,
)
from diascope.audit.mapsummary import faithfuls, localisations, mean, prefix_of, with_correct
from diascope.audit.mapwork import Found, measured
from diascope.audit.parts import MapScores, SanityStep, Steadiness
from diascope.audit.stages import STAGES, Measured, Stage
from diascope.audit.summarise import bounds
from diascope.evaluation import MEASURES, Sanity
from diascope.explain import Explainer
from diascope.explain.base import passes_of
from diascope.registry import to_settings

FAMILIES = ("sharpness", "colour", "faithfulness")


def _passes(bench: Bench) -> float:
    chosen = _methods(bench)
    parts = {name: parts_of(bench, method) for name, method in chosen.items()}
    tried = sum(passes_of(method, bench.pixels.size) for method in chosen.values())
    return (
        sum(each.passes for each in parts.values())
        + len(_most(parts, "faithfulness")) * 2 * faithful_passes()
        + len(_most(parts, "steadiness")) * attack_passes(bench)
        + tried * (1 + len(bench.others))
    )


def _measure(bench: Bench) -> Measured:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "FullGrad is not complete")  # the gap is measured
        return _measured(bench)


def _measured(bench: Bench) -> Measured:
    reasons = {name: misfit(bench, m, bench.model) for name, m in _methods(bench).items()}
    chosen = {name: m for name, m in _methods(bench).items() if not reasons[name]}
    parts = {name: parts_of(bench, method) for name, method in chosen.items()}
    columns = uninformed(bench, _most(parts, "faithfulness"))
    beside = attacked_images(bench, _most(parts, "steadiness"))
    scores = []
    for name, method in chosen.items():
        found = measured(bench, method, parts[name], beside)
        prefix = prefix_of(name, next(iter(chosen)))
        columns |= _columns(prefix, found)
        scores.append(_scores(bench, name, method, parts[name], found, prefix, columns))
    if "correct" in bench.table and not bench.others:
        correct = bench.table.correct.to_numpy(dtype=bool)
        scores = with_correct(scores, columns, correct, bench.groups, bench.bootstrap)
    for name, reason in reasons.items():
        if reason:
            settings = to_settings(_methods(bench)[name])
            scores.append(MapScores(name, settings, images=0, left_out=reason))
    images = max((len(each.maps.rows) for each in parts.values()), default=0)
    return Measured(scores, columns, images=images)


def _methods(bench: Bench) -> dict[str, Explainer]:
    return methods(bench.settings, bench.effort, gradients=bench.subject.gradients)


def _most(parts: Mapping[str, Parts], name: str) -> Rows:
    """Return the largest of the draws that the methods make for a part: it holds the others."""
    rows = [getattr(each, name).rows for each in parts.values()]
    return max(rows, key=len, default=np.zeros(0, np.int64))


def _columns(prefix: str, found: Found) -> dict[str, Column]:
    """Return the columns of a method as the table with a row an image calls them."""
    columns = {prefix + name: column for name, column in found.columns.items()}
    for against, table in found.steady.items():
        columns |= {f"{prefix}{name} ({against})": column for name, column in table.items()}
    return columns


def _scores(
    bench: Bench,
    name: str,
    method: Explainer,
    parts: Parts,
    found: Found,
    prefix: str,
    columns: Mapping[str, Column],
) -> MapScores:
    groups, options = bench.groups, bench.bootstrap
    everywhere = np.ones(len(bench.pixels), dtype=bool)
    measures = {
        key: mean(column, groups, options)
        for key, column in found.columns.items()
        if _kind(key) in FAMILIES or key == "completeness"
    }
    return MapScores(
        name=name,
        explainer=to_settings(method),
        images=len(parts.maps.rows),
        localisation=localisations(columns, prefix, everywhere, groups, options),
        measures={k: v for k, v in measures.items() if np.isfinite(v[0])},
        steadiness=_steadiness(bench, found),
        sanity=_steps(bench, found.sanity, parts.sanity.rows),
        passed=None
        if found.sanity is None
        else found.sanity.decided(groups[parts.sanity.rows], **options),
        faithfulness=faithfuls(
            columns, prefix, [key for key in FAITHFUL if key in found.columns], groups, options
        ),
    )


def _kind(name: str) -> str:
    return str(MEASURES[name].family) if name in list(MEASURES) else ""


def _steadiness(bench: Bench, found: Found) -> list[Steadiness]:
    return [
        Steadiness(
            against=_called(bench, against),
            measure=measure,
            value=mean(column, bench.groups, bench.bootstrap),
            images=int(np.isfinite(column).sum()),
        )
        for against, table in found.steady.items()
        for measure, column in table.items()
        if np.isfinite(column).any()
    ]


def _called(bench: Bench, against: str) -> str:
    """Return "seed of NAME" for a model that was trained alike from another seed."""
    theirs = bench.cards.get(against)
    return f"seed of {against}" if theirs and seeds_apart(bench.subject.card, theirs) else against


def seeds_apart(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Tell whether two cards are of models that differ by the training seed alone."""
    same = ("model", "objective", "objective_eps_given", "classes", "size", "preprocess")
    data = [card.get("data", {}).get("fingerprint") for card in (ours, theirs)]
    return (
        "seed" in ours
        and "seed" in theirs
        and ours["seed"] != theirs["seed"]
        and data[0] == data[1]
        and all(key in ours and ours[key] == theirs.get(key) for key in same[:2])
        and all(ours.get(key) == theirs.get(key) for key in same[2:])
    )


def _steps(bench: Bench, sanity: Sanity | None, rows: Rows) -> list[SanityStep]:
    if sanity is None:
        return []
    found = sanity.intervals(bench.groups[rows], **bench.bootstrap)
    return [
        SanityStep(
            layers,
            agreement={name: each[number].value for name, each in found.items()},
            bounds={name: bounds(each[number]) for name, each in found.items()},
            images=len(rows),
        )
        for number, layers in enumerate(sanity.groups)
    ]


MAPS = STAGES.register("maps")(
    Stage(
        kind=list[MapScores],
        passes=_passes,
        measure=_measure,
        order=60,
        effort=(
            "explainers",
            "map_images",
            "faithfulness_images",
            "steadiness_images",
            "sanity_images",
        ),
        beside=True,
    )
)
