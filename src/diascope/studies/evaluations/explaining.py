"""The maps of an examination: by which methods, of which class, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.evaluation.measures import MEASURES, members
from diascope.evaluation.measures.road import ROAD
from diascope.explain import Explainer, explain_all, explainers, rectify
from diascope.explain.base import passes_of
from diascope.models.heads import predictions
from diascope.models.modes import exactly
from diascope.studies.exam import Exam, Sample

Of = Literal["label", "prediction"]
Several = Mapping[str, dict[str, Any] | str]
Maps = dict[str, Tensor]
SIDE = 224  # of the images by which passes are foreseen


def one(name: str = "gradient") -> Callable[[], Several]:
    """Return what makes the settings of one explainer, by its own name."""
    return lambda: {name: {"name": name}}


def built(several: Several, where: str = "explainers") -> dict[str, Explainer]:
    """Return explainers by name; an entry without `name` is that of its key."""
    if not several:
        raise UserError(f"{where}: name one at least")
    made = {}
    for key, settings in several.items():
        if not key or set("@.") & set(key):
            raise UserError(f"{where}: '{key}': a column's name begins with it: no '@', no '.'")
        content = {"name": settings} if isinstance(settings, str) else {"name": key, **settings}
        made[key] = explainers.build(content, f"{where}.{key}")
    return made


class Explaining:
    """What looks at the maps of several explainers."""

    explainers: Several

    @cached_property
    def methods(self) -> dict[str, Explainer]:
        """The explainers by name; raises `UserError` for mistakes in them."""
        return built(self.explainers)


def named(names: tuple[str, ...], family: str, where: str) -> dict[str, Any]:
    """Return measures of a family by name; raises `UserError` for one that is not of it."""
    known = members(family)
    for name in names:
        if name not in known:
            _ = MEASURES[name]  # a name that is none at all
            raise UserError(f"{where}: '{name}' is not one of {', '.join(known)}")
    return {name: known[name] for name in names}


def explained(exam: Exam, some: Sample, of: Of) -> Tensor:
    """Return the class of each image (n,) that its maps speak of."""
    if of == "label":
        return some.y
    with torch.no_grad(), exactly(exam.model) as inner:
        logits: Tensor = inner(some.x)
    exam.tell(len(some.x))
    return predictions(logits)


def heats(
    exam: Exam,
    methods: Mapping[str, Explainer],
    some: Sample,
    target: Tensor,
    *,
    x: Tensor | None = None,
    model: nn.Module | None = None,
    purpose: str = "explain",
) -> Maps:
    """Return the maps (n, H, W) of some images by each method, not negative.

    x: other pixels of the same images; model: another one; purpose: of the random draws, which
    are the same for every model.
    """
    seen = some.x if x is None else x
    raw = explain_all(
        {"": exam.model if model is None else model},
        methods,
        seen,
        target,
        generator=exam.seeded(purpose),
        ids=some.ids,
    )[""]
    exam.tell(len(seen) * passes_of_all(methods, seen.shape[-1]))
    return {name: rectify(raw[name], method.rectification) for name, method in methods.items()}


def passes_of_all(methods: Mapping[str, Explainer], side: int = SIDE) -> float:
    """Return the passes by which one image is explained by every method."""
    return sum(passes_of(method, side) for method in methods.values())


def passes_of_faithful(measures: Mapping[str, Any]) -> float:
    """Return the passes by which measures of faithfulness look at one map."""
    passes = 0.0
    for measure in measures.values():
        passes += getattr(measure, "steps", getattr(measure, "samples", -1)) + 1
        passes += 2 * len(getattr(measure, "shares", ())) if isinstance(measure, ROAD) else 0
    return passes


def check_regions(exam: Exam, foreground: float | None) -> None:
    """Raise `UserError` where no image has a region to look for."""
    if foreground is None and not exam.pixels.has_mask.any():
        raise UserError(
            f"{exam.pixels.dataset.name}: no image has a mask or boxes: take data that has, say "
            "masks: false, or, for bright objects on black, foreground: 0.5"
        )


def regions_of(some: Sample, foreground: float | None) -> Tensor:
    """Return the regions (n, H, W) bool: of masks and boxes, else what is brighter than this."""
    bright = torch.zeros_like(some.x[:, 0], dtype=torch.bool)
    if foreground is not None:
        bright = some.x.mean(1) > foreground
    if some.masks is None:
        return bright
    there = some.masks.flatten(1).any(1)[:, None, None]
    return torch.where(there, some.masks, bright)
