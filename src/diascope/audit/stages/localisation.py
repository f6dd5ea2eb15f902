"""How well the shown map of each image lies on its mask."""

from __future__ import annotations

from diascope.audit.bench import Bench
from diascope.audit.measure import localisation
from diascope.audit.stages import STAGES, Measured, Stage


def _passes(bench: Bench) -> float:
    return 3 * len(bench.pixels)


def _measure(bench: Bench) -> Measured:
    columns = localisation(
        bench.model,
        bench.pixels,
        bench.settings,
        bench.device,
        lambda stage, images: bench.tell(3 * images),
    )
    return Measured(None, columns, images=len(bench.pixels))


LOCALISATION = STAGES.register("localisation")(
    Stage(kind=None, passes=_passes, measure=_measure, needs=("gradients", "masks"), order=15)
)
