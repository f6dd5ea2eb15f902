"""Which methods explain a model in an audit, on how many images, and what each costs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from diascope.audit.bench import Bench, Rows
from diascope.audit.effort import Effort
from diascope.audit.settings import AuditSettings
from diascope.errors import UserError
from diascope.evaluation import ROAD, Deletion, Insertion
from diascope.evaluation.measures.faithfulness import Faithfulness
from diascope.evaluation.sanity import FEWEST, module_groups
from diascope.explain import Explainer, Occlusion, covered, explainers
from diascope.explain.base import Complete, passes_of
from diascope.hardware import out_of_memory
from diascope.models.stem import TRIAL, WORTH

COSTLY = 30  # passes an image, above which a method is measured on a quarter of the images
LEAST = 4  # images of a costly method; for the sanity check as many as decide it
NOISE = 0.01  # of a pixel, in pixel units: two and a half grey levels
DRAWS = 3  # of noise
ATTACK_STEPS = 10
FAITHFUL: Mapping[str, Faithfulness] = {
    "deletion": Deletion(steps=16),
    "insertion": Insertion(steps=16),
    "road": ROAD(),
}
BLACK_BOX = "occlusion"


def methods(settings: AuditSettings, effort: Effort, *, gradients: bool = True) -> dict[str, Any]:
    """Return the explainers of an audit by name, the shown one first.

    That of the settings, where they name one, and those of the effort. Without gradients
    Occlusion alone.
    """
    chosen: dict[str, Explainer] = {}
    if settings.explainer:
        shown = settings.build_explainer()
        chosen[explainers.name_of(shown)] = shown
    for name in effort.explainers:
        chosen.setdefault(name, explainers.build(name, "effort.explainers"))
    if gradients:
        return chosen
    return {BLACK_BOX: chosen.get(BLACK_BOX) or explainers.build(BLACK_BOX)}


def misfit(bench: Bench, method: Explainer, model: nn.Module) -> str:
    """Return why a method does not explain a model, tried on one image; empty where it does."""
    rows = bench.drawn(1)
    x, y = bench.pixels.x(rows, bench.device), bench.pixels.y(rows, bench.device)
    try:
        method(model, x, y, generator=bench.seeded("explain"))
    except UserError as error:
        return str(error)
    except (Exception, SystemExit) as error:  # whatever a foreign module raises
        if out_of_memory(error):
            raise
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    return ""


@dataclass(frozen=True)
class Part:
    """The images on which one part of a method's measurement is made, the passes of each, how
    many calls of the method that is, and the passes of the trial that a call may begin with.
    """

    rows: Rows
    each: float
    calls: int = 0
    trial: int = TRIAL

    @property
    def passes(self) -> float:
        """The passes of all the images, and of the trials."""
        whole = len(self.rows) * self.each
        return whole + (self.calls * self.trial if whole >= WORTH else 0)


@dataclass(frozen=True)
class Parts:
    """All parts of a method's measurement; the images of a part are among those of `maps`."""

    maps: Part
    faithfulness: Part
    steadiness: Part
    sanity: Part

    @property
    def passes(self) -> float:
        """The passes of all parts."""
        parts = (self.maps, self.faithfulness, self.steadiness, self.sanity)
        return sum(part.passes for part in parts)


def parts_of(bench: Bench, method: Explainer) -> Parts:
    """Return on which images a method is measured, and at most how many passes that takes."""
    cost, effort = passes_of(method, bench.pixels.size), bench.effort
    groups = len(module_groups(bench.model)) if weighed(bench) else 0
    trial = TRIAL + (covered.TRIAL if isinstance(method, Occlusion) else 0)
    again = DRAWS + bool(attacked(bench)) + len(bench.others)

    def part(count: int | None, each: float, most: int, calls: int = 0, least: int = LEAST) -> Part:
        count = most if count is None else min(count, most)
        if cost > COSTLY:
            count = min(count, max(least, count // 4))
        return Part(bench.drawn(count), each, calls, trial)

    maps = part(effort.map_images, cost + _summing(method, cost), len(bench.pixels), calls=2)
    most = len(maps.rows)
    return Parts(
        maps=maps,
        faithfulness=part(effort.faithfulness_images, faithful_passes(), most),
        steadiness=part(effort.steadiness_images, cost * again, most, again),
        sanity=part(effort.sanity_images if groups else 0, cost * groups, most, groups, FEWEST),
    )


def _summing(method: Explainer, cost: float) -> float:
    """Return the passes of an image by which the sum of the parts is checked."""
    if not isinstance(method, Complete):
        return 0
    return 2 + (0 if getattr(method, "sums_itself", False) else cost)


def faithful_passes() -> float:
    """Return the passes of an image by which one order of its pixels is measured."""
    curves = sum(m.steps + 1 for m in FAITHFUL.values() if isinstance(m, Deletion | Insertion))
    return curves + sum(2 * len(m.shares) for m in FAITHFUL.values() if isinstance(m, ROAD))


def attacked(bench: Bench) -> float:
    """Return the epsilon of the images attacked for steadiness; 0 where none are."""
    return bench.reference if bench.subject.gradients else 0.0


def weighed(bench: Bench) -> bool:
    """Tell whether the model has weights that can be drawn anew."""
    return bench.subject.gradients and any(True for _ in bench.model.parameters())


def places(rows: Rows, among: Rows) -> Rows:
    """Return where the rows that are among others, in rising order, stand in them (n,)."""
    return np.flatnonzero(np.isin(among, rows))
