"""The fourteen checks that tell an honest robustness figure from a masked gradient."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from diascope.attacks import Attack
from diascope.audit.bench import Bench
from diascope.audit.masking import run_masking
from diascope.audit.masking.cost import most
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome
from diascope.audit.stages import STAGES, Measured, Stage


def main_attack(bench: Bench) -> Attack:
    """Return the audit's main attack, of as many steps as the checks have."""
    attack = bench.settings.build_attack()
    if "steps" in {field.name for field in fields(attack)}:  # type: ignore[arg-type]
        return replace(attack, steps=bench.effort.masking_steps)  # type: ignore[type-var]
    return attack


def passes(bench: Bench) -> float:
    """Return the passes on a model that withstands everything; most cost a part of that."""
    if not bench.effort.masking_images:
        return 0.0
    return most(
        min(bench.effort.masking_images, len(bench.pixels)),
        sum(eps > 0 for eps in bench.epsilons),
        bench.effort.masking_steps,
        bench.effort.masking_queries,
        main=main_attack(bench),
        others=len(bench.others),
        outputs=len(bench.pixels.dataset.classes),
    )


def _correct(bench: Bench) -> NDArray[np.bool_] | None:
    return bench.table.correct.to_numpy(dtype=bool) if "correct" in bench.table else None


def masking(bench: Bench) -> Measured:
    """Run the checks on some of the images that are classified correctly without an attack.

    The others are broken already, and say nothing of an attack.
    """
    rows = bench.drawn(bench.effort.masking_images, among=_correct(bench))
    if not len(rows):  # the checks say themselves why nothing can be decided
        rows = bench.drawn(bench.effort.masking_images)
    stand = Stand(
        bench.model,
        bench.pixels.x(rows, bench.device),
        bench.pixels.y(rows, bench.device),
        bench.pixels.ids(rows, bench.device),
        norm=bench.settings.norm,
        eps=bench.reference,
        epsilons=bench.epsilons,
        steps=bench.effort.masking_steps,
        queries=bench.effort.masking_queries,
        attack=main_attack(bench),
        groups=bench.groups[rows],
        classes=bench.pixels.dataset.classes,
        others=bench.others,
        batch_size=bench.batch_size,
        seed=bench.settings.seed,
        replicates=bench.settings.replicates,
        tell=bench.tell,
    )
    return Measured(run_masking(stand), images=len(rows))


STAGES.register("masking")(
    Stage(
        kind=list[MaskingOutcome],
        passes=passes,
        measure=masking,
        needs=("gradients",),
        order=25,
        beside=True,
        share=0.3,
        settled=False,
        effort=("masking_images", "masking_steps", "masking_queries"),
    )
)
