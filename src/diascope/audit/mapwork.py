"""The maps of one method, made once and measured by everything that looks at them."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from diascope.audit.bench import Bench
from diascope.audit.mapbatch import Batch, Kept
from diascope.audit.mapbeside import Beside, Column, faithful
from diascope.audit.mapmethods import DRAWS, NOISE, Parts, misfit, places
from diascope.audit.stages import blank
from diascope.evaluation import (
    Sanity,
    attack_stability,
    maps_table,
    model_stability,
    noise_stability,
    sanity_check,
)
from diascope.explain import Explainer, completeness, explain_all, rectify
from diascope.explain.base import Complete
from diascope.models.modes import unwrapped


@dataclass
class Found:
    """What was measured of a method's maps: columns (N,) by measure, and the cascade."""

    columns: dict[str, Column] = field(default_factory=dict)
    steady: dict[str, dict[str, Column]] = field(default_factory=dict)  # against -> measure
    sanity: Sanity | None = None


def measured(bench: Bench, method: Explainer, parts: Parts, beside: Beside) -> Found:
    """Measure the maps of one method, of the true class, on the images of its parts."""
    found, cascades = Found(), list[Sanity]()
    others = _fitting(bench, method) if len(parts.steadiness.rows) else {}
    copies = len(parts.sanity.rows) > 0 and _copies(bench.model)
    for rows in bench.batches(parts.maps.rows):
        batch = Batch.of(bench, rows)
        raw = _explained(bench, method, batch)
        _measure_maps(bench, method, batch, raw, found)
        bench.tell(len(rows) * parts.maps.each)
        for part in (parts.faithfulness, parts.steadiness, parts.sanity):
            place = places(part.rows, rows)
            if not len(place):
                continue
            some = batch.take(place)
            kept = Kept(bench, method, some.x, raw[torch.from_numpy(place).to(raw.device)])
            if part is parts.faithfulness:
                _measure_faithfulness(bench, kept, some, found)
            elif part is parts.steadiness:
                _measure_steadiness(bench, kept, some, beside.of(some.rows), others, found)
            elif copies:
                seed = bench.settings.seed
                cascades.append(
                    sanity_check(kept, bench.model, some.x, some.y, seed=seed, ids=some.ids)
                )
            bench.tell(len(place) * part.each)
    found.sanity = _joined(cascades)
    return found


def _fitting(bench: Bench, method: Explainer) -> dict[str, nn.Module]:
    """Return the other models that the method explains."""
    others = bench.others.items()
    return {name: model for name, model in others if not misfit(bench, method, model)}


def _explained(bench: Bench, method: Explainer, batch: Batch) -> Tensor:
    made = explain_all(
        {"": bench.model},
        {"": method},
        batch.x,
        batch.y,
        generator=bench.seeded("explain"),
        ids=batch.ids,
    )
    return made[""][""]


def _measure_maps(bench: Bench, method: Explainer, batch: Batch, raw: Tensor, found: Found) -> None:
    """Measure what needs the maps alone, and whether the parts sum to the score."""
    heat = rectify(raw, method.rectification)
    table = maps_table(heat, x=batch.x, masks=batch.inside)
    if isinstance(method, Complete):
        sums = completeness(
            method,
            bench.model,
            batch.x,
            batch.y,
            generator=bench.seeded("explain"),
            ids=batch.ids,
            raw=raw,
        )
        table["completeness"] = sums.gap.float().cpu().numpy()
    for name, values in table.items():
        found.columns.setdefault(name, blank(bench))[batch.rows] = values


def _measure_faithfulness(bench: Bench, kept: Kept, batch: Batch, found: Found) -> None:
    heat = rectify(kept(bench.model, batch.x, batch.y), kept.rectification)
    for name, values in faithful(bench, batch, heat):
        found.columns.setdefault(name, blank(bench))[batch.rows] = values


def _measure_steadiness(
    bench: Bench,
    kept: Kept,
    batch: Batch,
    x_adv: Tensor | None,
    others: dict[str, nn.Module],
    found: Found,
) -> None:
    model, x, y, ids = bench.model, batch.x, batch.y, batch.ids
    seed = bench.settings.seed
    tables = {
        f"noise {NOISE:g}": noise_stability(
            kept, model, x, y, noise=NOISE, draws=DRAWS, seed=seed, ids=ids
        )
    }
    if x_adv is not None:
        tables["attack"] = attack_stability(kept, model, x, y, x_adv, ids=ids)
    for name, other in others.items():
        pair = model_stability(kept, {"this": model, "other": other}, x, y, ids=ids)
        tables[name] = {k: v for k, v in pair.items() if not k.endswith("_this_other")}
    for against, table in tables.items():
        columns = found.steady.setdefault(against, {})
        for measure, values in table.items():
            if not measure.endswith("_worst"):
                columns.setdefault(measure, blank(bench))[batch.rows] = values


def _joined(cascades: list[Sanity]) -> Sanity | None:
    if not cascades:
        return None
    first = cascades[0]
    similarity = {
        name: np.concatenate([each.similarity[name] for each in cascades], axis=1)
        for name in first.similarity
    }
    return Sanity(first.groups, similarity, first.threshold)


def _copies(model: nn.Module) -> bool:
    """Tell whether a model can be copied, so that the copy's weights may be lost."""
    try:
        copy.deepcopy(unwrapped(model))
    except Exception:  # the user's own module may refuse in any way
        return False
    return True
