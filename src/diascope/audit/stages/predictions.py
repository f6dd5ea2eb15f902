"""What the model says of every image."""

from __future__ import annotations

from diascope.audit.bench import Bench
from diascope.audit.stages import STAGES, Measured, Stage
from diascope.audit.telling import finite
from diascope.errors import UserError
from diascope.evaluation.predictions import prediction_table


def _passes(bench: Bench) -> float:
    return len(bench.pixels)


def _measure(bench: Bench) -> Measured:
    table = prediction_table(bench.pixels.dataset, bench.logits)
    if not finite(table).any():
        raise UserError(
            f"its outputs are finite for none of {len(table)} images; check its weights, and the "
            "range of its input"
        )
    table["group"] = bench.groups  # an image without a group is its own
    bench.tell(len(table))
    columns = {str(name): table[name].to_numpy() for name in table}
    return Measured(None, columns, images=len(table))


PREDICTIONS = STAGES.register("predictions")(
    Stage(kind=None, passes=_passes, measure=_measure, order=0)
)
