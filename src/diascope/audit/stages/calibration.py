"""How sure the model is of its answers, right and wrong, and what an attack does to that."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diascope.attacks import PGD, Attack
from diascope.attacks.base import at_eps, attacks
from diascope.audit.attackers import access_of, main_attack, passes_of
from diascope.audit.bench import Bench, Rows
from diascope.audit.parts import Bin, Calibration
from diascope.audit.stages import STAGES, Measured, Stage, blank
from diascope.audit.summarise import bounds
from diascope.evaluation import bootstrap_curve, bootstrap_difference, bootstrap_statistic
from diascope.evaluation.calibration import (
    BINS,
    brier_score,
    calibration_error_by_chance,
    calibration_interval,
    confidence_of,
    edges_of,
    log_loss,
    reliability,
)
from diascope.models import heads
from diascope.models.modes import exactly
from diascope.registry import to_settings

Floats = NDArray[np.float64]


def to_the_end(attack: Attack, steps: int = 20) -> Attack:
    """Return the attack such that it climbs on where an image is broken, and keeps the worst point.

    One that stops at the boundary leaves answers of which the model is hardly sure, and so tells
    nothing of its confidence. PGD of so many steps takes the place of an attack by gradients that
    always stops there; one that sees no gradients stays as it is.
    """
    if access_of(attacks.name_of(attack)) != "white box":
        return attack
    known = {f.name for f in dataclasses.fields(attack)}  # type: ignore[arg-type]
    if "stop_early" not in known:
        return PGD(norm=attack.norm, steps=steps, returns="best")
    changes: dict[str, Any] = {"stop_early": False}
    if "returns" in known:
        changes["returns"] = "best"
    return dataclasses.replace(attack, **changes)  # type: ignore[type-var]


def _attack(bench: Bench) -> Attack:
    return to_the_end(main_attack(bench.settings, bench.subject), bench.effort.curve_steps)


def _rows(bench: Bench) -> Rows:
    """Return the images that are attacked: none without an epsilon."""
    rows = bench.drawn(bench.effort.calibration_images)
    return rows if bench.reference > 0 else rows[:0]


def _passes(bench: Bench) -> float:
    return 1 + len(_rows(bench)) * (passes_of(_attack(bench), bench.classes) + 1)


def _measure(bench: Bench) -> Measured:
    names = [f"prob_{name}" for name in bench.pixels.dataset.classes]
    clean = bench.table[names].to_numpy(dtype=np.float64)
    right = bench.table.correct.to_numpy(dtype=bool)
    found = [_calibration(bench, np.arange(len(clean)), clean, right, 0.0, {})]
    bench.tell(1)
    rows = _rows(bench)
    if not len(rows):
        return Measured(found, images=len(clean))
    attacked, withstood = _attacked(bench, rows)
    settings = to_settings(_attack(bench)) | {"eps": bench.reference}
    found.append(_calibration(bench, rows, attacked, withstood, bench.reference, settings))
    confidence, correct = blank(bench), blank(bench)
    confidence[rows], correct[rows] = confidence_of(attacked), withstood
    columns = {"calibration:confidence": confidence, "calibration:correct": correct}
    return Measured(found, columns, images=len(clean))


def _attacked(bench: Bench, rows: Rows) -> tuple[Floats, NDArray[np.bool_]]:
    """Return the probabilities (n, K) under attack, and which images are still right (n,)."""
    attack, each = at_eps(_attack(bench), bench.reference), (_passes(bench) - 1) / len(rows)
    probabilities: list[Tensor] = []
    right: list[Tensor] = []
    for part in bench.batches(rows):
        y = bench.pixels.y(part, bench.device)
        x_adv = attack(
            bench.model,
            bench.pixels.x(part, bench.device),
            y,
            generator=bench.seeded("attack"),
            ids=bench.pixels.ids(part).to(bench.device),
        )
        with torch.no_grad(), exactly(bench.model) as inner:
            logits = inner(x_adv).float()
        probabilities.append(heads.probabilities(logits).double().cpu())
        right.append(heads.is_correct(logits, y).cpu())
        bench.tell(len(part) * each)
    return torch.cat(probabilities).numpy(), torch.cat(right).numpy()


def _calibration(
    bench: Bench,
    rows: Rows,
    probabilities: Floats,
    right: NDArray[np.bool_],
    eps: float,
    attack: dict[str, Any],
) -> Calibration:
    """Return the scores of probabilities (n, K); images where they are not finite are left out."""
    there = np.isfinite(probabilities).all(1)
    p, correct, rows = probabilities[there], right[there], rows[there]
    labels, groups = bench.pixels.dataset.labels[rows], bench.groups[rows]
    sure, options = confidence_of(p), bench.bootstrap
    edges = edges_of(sure, BINS)
    error = calibration_interval(sure, correct, groups, **options)
    brier = bootstrap_statistic(lambda w: brier_score(p, labels, w), groups, **options)
    nll = bootstrap_statistic(lambda w: log_loss(p, labels, w), groups, **options)
    bins = reliability(sure, correct, groups, edges, **options)

    def mean(values: Floats) -> tuple[float, float, float]:
        return bounds(bootstrap_curve(values[:, None], groups, **options)[0])

    return Calibration(
        eps=eps,
        images=len(rows),
        ece=bounds(error),
        brier=bounds(brier),
        confidence=mean(sure),
        accuracy=bounds(bootstrap_curve(correct[:, None], groups, **options)[0]),
        bins=[
            Bin(float(low), float(high), count, confidence, bounds(accuracy))
            for low, high, (count, confidence, accuracy) in zip(
                edges, edges[1:], bins, strict=False
            )
        ],
        ece_by_chance=calibration_error_by_chance(sure, seed=bench.settings.seed),
        nll=bounds(nll),
        gap=bounds(bootstrap_difference(sure, correct, groups, proportion=True, **options)),
        confidence_right=mean(np.where(correct, sure, np.nan)),
        confidence_wrong=mean(np.where(correct, np.nan, sure)),
        attack=attack,
    )


CALIBRATION = STAGES.register("calibration")(
    Stage(
        kind=list[Calibration],
        passes=_passes,
        measure=_measure,
        needs=("scores",),
        order=45,
        effort=("calibration_images", "curve_steps", "queries"),
    )
)
