"""The epsilon that breaks each image, by the audit's main attack."""

from __future__ import annotations

import numpy as np

from diascope.audit.attackers import main_attack, minimal_on_grid, passes_of_curve, usual_share
from diascope.audit.bench import Bench
from diascope.audit.stages import STAGES, Measured, Stage, blank


def _passes(bench: Bench) -> float:
    attack = main_attack(bench.settings, bench.subject)
    each = passes_of_curve(attack, bench.classes, len(bench.epsilons) - 1)
    return len(bench.drawn(bench.effort.curve_images)) * each


def _measure(bench: Bench) -> Measured:
    rows = bench.drawn(bench.effort.curve_images)
    attack, grid = main_attack(bench.settings, bench.subject), bench.epsilons
    each = _passes(bench) / max(1, len(rows) * len(grid))
    minimal, step = blank(bench), 4 * bench.batch_size
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        minimal[part] = minimal_on_grid(
            bench.model,
            bench.pixels.x(part, bench.device),
            bench.pixels.y(part, bench.device),
            attack,
            grid,
            generator=bench.seeded("attack"),
            ids=bench.pixels.ids(part).to(bench.device),
            batch_size=bench.batch_size,
            checkpoint=bench.checkpoint(f"curve-{start}-{len(part)}"),
            progress=lambda settled: bench.tell(settled * each),
        )
    return Measured(None, {"minimal_epsilon": np.asarray(minimal)}, images=len(rows))


CURVE = STAGES.register("curve")(
    Stage(
        kind=None,
        passes=_passes,
        measure=_measure,
        order=10,
        share=lambda bench: usual_share(
            main_attack(bench.settings, bench.subject), len(bench.epsilons) - 1
        ),
        effort=("curve_images", "curve_steps", "queries", "attacks"),
    )
)
