"""What stands beside the maps of every method: attacked images, and orders that know nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diascope.attacks import PGD
from diascope.audit.bench import Bench, Rows
from diascope.audit.mapbatch import Batch
from diascope.audit.mapmethods import ATTACK_STEPS, FAITHFUL, attacked, faithful_passes, places
from diascope.audit.stages import blank
from diascope.evaluation import centre_prior
from diascope.randomness import Noise, derive

Column = NDArray[np.float64]


@dataclass(frozen=True)
class Beside:
    """What all methods share: images attacked, x_adv (n, C, H, W) of `rows`, none without one."""

    rows: Rows
    x_adv: Tensor | None

    def of(self, rows: Rows) -> Tensor | None:
        """Return the attacked images of some rows."""
        return None if self.x_adv is None else self.x_adv[places(rows, self.rows)]


def attacked_images(bench: Bench, rows: Rows) -> Beside:
    """Attack images by PGD at the reference epsilon, for maps of both; none for a black box."""
    eps = attacked(bench)
    if not eps or not len(rows):
        return Beside(rows, None)
    attack = PGD(norm=bench.settings.norm, eps=eps, steps=ATTACK_STEPS)
    made = []
    for part in bench.batches(rows):
        some = Batch.of(bench, part)
        generator = bench.seeded("attack")
        made.append(attack(bench.model, some.x, some.y, generator=generator, ids=some.ids))
        bench.tell(len(part) * attack_passes(bench))
    return Beside(rows, torch.cat(made))


def attack_passes(bench: Bench) -> float:
    """Return the passes by which one image is attacked."""
    return 3 * ATTACK_STEPS if attacked(bench) else 0


def uninformed(bench: Bench, rows: Rows) -> dict[str, Column]:
    """Return `<measure>_random` and `<measure>_centre` (N,): orders that know nothing of the model.

    The random order is the same for every model of an audit.
    """
    columns: dict[str, Column] = {}
    for part in bench.batches(rows):
        some = Batch.of(bench, part)
        height, width = some.x.shape[2:]
        noise = Noise(derive(bench.settings.seed, "random order"), some.ids)
        orders = {
            "random": noise.uniform((height, width)),
            "centre": centre_prior(height, width, device=some.x.device).expand(len(part), -1, -1),
        }
        for order, heat in orders.items():
            for name, values in faithful(bench, some, heat):
                columns.setdefault(f"{name}_{order}", blank(bench))[part] = values
        bench.tell(len(part) * 2 * faithful_passes())
    return columns


def faithful(bench: Bench, batch: Batch, heat: Tensor) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Yield each measure of faithfulness (B,), by name, of an order of the pixels."""
    for name, measure in FAITHFUL.items():
        values = measure(bench.model, batch.x, batch.y, heat, ids=batch.ids)
        yield name, values.float().cpu().numpy()
