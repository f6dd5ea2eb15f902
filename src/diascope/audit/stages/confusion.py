"""What images are called, without an attack and under one that wants any other answer."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from diascope.audit.attackers import main_attack, passes_of
from diascope.audit.bench import Bench, Rows
from diascope.audit.parts import Confusion
from diascope.audit.points import attacked_points
from diascope.audit.positive import positive_images
from diascope.audit.stages import STAGES, Measured, Stage, blank
from diascope.models import heads
from diascope.models.modes import exactly


def counts(labels: NDArray[np.int64], called: NDArray[np.int64], classes: int) -> list[list[int]]:
    """Return how many images of each class (rows) were called what (columns), (K, K)."""
    cells = np.bincount(labels * classes + called, minlength=classes**2)
    return [[int(n) for n in row] for row in cells.reshape(classes, classes)]


def _rows(bench: Bench) -> Rows:
    """Return the images that are attacked: those of the operating point, of both sides alike."""
    truth = positive_images(bench.pixels.dataset, bench.settings.positive)
    return bench.drawn_of_both(bench.effort.operating_images, truth)


def _passes(bench: Bench) -> float:
    each = passes_of(main_attack(bench.settings, bench.subject), bench.classes)
    return 1 + (len(_rows(bench)) * (each + 3) if bench.reference > 0 else 0)


def _measure(bench: Bench) -> Measured:
    labels, eps = bench.pixels.dataset.labels, bench.reference
    number = {name: k for k, name in enumerate(bench.pixels.dataset.classes)}
    called = np.asarray(bench.table.prediction.map(number), dtype=np.int64)
    found = [Confusion(0.0, counts(labels, called, bench.classes))]
    if eps <= 0:
        return Measured(found, images=len(labels))
    rows = _rows(bench)
    attacked = _attacked(bench, rows, called)
    found.append(Confusion(eps, counts(labels[rows], attacked, bench.classes)))
    column = blank(bench)
    column[rows] = attacked
    return Measured(found, {"attacked_as": column}, images=len(labels))


def _attacked(bench: Bench, rows: Rows, called: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return what images (B,) are called at the reference epsilon, (B,).

    One that is wrong as it is keeps its name, and one of which the curve knows that it withstands
    this epsilon its label: neither is attacked.
    """
    labels, eps = bench.pixels.dataset.labels[rows], bench.reference
    minimal = np.full(len(rows), np.nan)
    if "minimal_epsilon" in bench.table:
        minimal = bench.table.minimal_epsilon.to_numpy(dtype=np.float64)[rows]
    result = called[rows].copy()
    doubtful = np.flatnonzero((called[rows] == labels) & ~(minimal > eps))
    attack = main_attack(bench.settings, bench.subject)
    each = passes_of(attack, bench.classes)
    for part in bench.batches(doubtful):
        ((_, points),) = attacked_points(
            bench.model,
            bench.pixels.x(rows[part], bench.device),
            bench.pixels.y(rows[part], bench.device),
            bench.pixels.ids(rows[part]).to(bench.device),
            attack=attack,
            epsilons=[eps],
            grid=bench.epsilons,
            minimal=torch.from_numpy(minimal[part]),
            seeded=lambda: bench.seeded("attack"),
        )
        with torch.no_grad(), exactly(bench.model) as inner:
            result[part] = heads.predictions(inner(points)).cpu().numpy()
        bench.tell(len(part) * (each + 3))
    return result


CONFUSION = STAGES.register("confusion")(
    Stage(
        kind=list[Confusion],
        passes=_passes,
        measure=_measure,
        order=41,
        share=0.6,
        settled=False,
        effort=("operating_images", "attacks", "curve_images", "curve_steps", "queries"),
    )
)
