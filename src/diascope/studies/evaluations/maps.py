"""Where a model looks: every measure of its maps, beside chance and the centre."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diascope.audit.bench import Rows
from diascope.data import load_region
from diascope.errors import UserError, gathered
from diascope.evaluation import maps_table
from diascope.evaluation.measures import members
from diascope.explain import Explainer
from diascope.explain.base import explainers
from diascope.models.attention import attention_of
from diascope.registry import to_settings
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.evaluations.explaining import (
    Explaining,
    Of,
    Several,
    check_regions,
    explained,
    heats,
    named,
    one,
    passes_of_all,
    passes_of_faithful,
    regions_of,
)
from diascope.studies.exam import Column, Exam, Measured, Sample

ATTENTION, HAIR = "soft_attention", "hair"


@EVALUATIONS.register("maps")
@dataclass(frozen=True, kw_only=True)
class Maps(Explaining):
    """Every measure of the maps of several methods: sharpness, localisation, colour, hairs.

    explainers: settings by the name that their columns begin with. of: the class that is explained,
    the image's "label" or the model's "prediction". images: how many, None for all. masks: whether
    the data must have regions, of masks or boxes; without, what needs them is left out.
    foreground: for data without regions, such as digits, the region is where an image's mean over
    the channels exceeds this value. regions: further columns of the data's table, None for the
    phantom's "hair" where there is one. soft_attention: whether the attention map of a model that
    has one is measured as well. faithfulness: measures of that family, which cost many passes, on
    `faithfulness_images` of the images.

    Columns, NaN where a measure is not defined or an image not measured: `<explainer>.<measure>`;
    of localisation also `_chance` (a map that is the same everywhere) and `_centre` (one that only
    knows the middle); `<explainer>.<region>_share` and `_share_chance`.
    """

    explainers: Several = field(default_factory=one(), hash=False)
    of: Of = "label"
    images: int | None = None
    masks: bool = True
    foreground: float | None = None
    regions: tuple[str, ...] | None = None
    soft_attention: bool = True
    faithfulness: tuple[str, ...] = ()
    faithfulness_images: int | None = 64

    def __post_init__(self) -> None:
        for name in ("images", "faithfulness_images"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name}={count}: at least 1, or null for all")
        if self.foreground is not None and not 0 <= self.foreground < 1:
            raise ValueError(f"foreground={self.foreground}: a brightness, from 0 to below 1")
        if self.soft_attention and ATTENTION in self.explainers:
            raise ValueError(f"explainers: '{ATTENTION}' is there by itself: leave it out")
        _ = self.methods, self.faithful  # raise UserError for mistakes in them

    @cached_property
    def faithful(self) -> dict[str, Any]:
        """The measures of faithfulness by name."""
        return named(self.faithfulness, "faithfulness", "faithfulness")

    def __call__(self, exam: Exam) -> Measured:
        """Measure; see `Evaluation`."""
        methods = dict(self.methods)
        if self.soft_attention and attentive(exam):
            methods[ATTENTION] = explainers.build(ATTENTION)
        rows = exam.drawn(self.images)
        if self.masks:
            check_regions(exam, self.foreground)
        further = self._further(exam, rows)
        costly = exam.drawn(self.faithfulness_images) if self.faithful else rows[:0]
        columns: dict[str, Column] = {}
        with gathered() as doubts:
            for some in exam.batches(rows):
                piece = partial(self._piece, exam, methods, some, further, costly)
                for name, values in exam.kept(["maps", some.rows], piece).items():
                    columns.setdefault(name, exam.blank())[some.rows] = values
        about = {
            "explainers": {name: to_settings(method) for name, method in methods.items()},
            "of": self.of,
            "images": len(rows),
            "doubts": doubts,
        }
        return Measured(columns, about)

    def _piece(
        self,
        exam: Exam,
        methods: Mapping[str, Explainer],
        some: Sample,
        further: Mapping[str, Tensor],
        costly: Rows,
    ) -> dict[str, Column]:
        """Return the columns of some images, (n,) each."""
        target = explained(exam, some, self.of)
        inside = regions_of(some, self.foreground) if self.masks else None
        beside = {name: further[name][some.rows] for name in further}
        columns: dict[str, Column] = {}
        for name, heat in heats(exam, methods, some, target).items():
            found = maps_table(heat, x=some.x, masks=inside, regions=beside)
            columns |= {f"{name}.{measure}": values for measure, values in found.items()}
            faithful = self._faithful(exam, some, target, heat, costly)
            columns |= {f"{name}.{measure}": values for measure, values in faithful.items()}
        return columns

    def _further(self, exam: Exam, rows: Rows) -> dict[str, Tensor]:
        """Return further regions by name, (N, H, W) bool; those of other images are empty."""
        dataset, pixels = exam.pixels.dataset, exam.pixels
        names = self.regions
        if names is None:
            names = (HAIR,) if HAIR in dataset.table else ()
        found = {}
        for name in names:
            whole = torch.zeros(len(pixels), pixels.size, pixels.size, dtype=torch.bool)
            loaded = load_region(dataset.take(rows), name, pixels.size, exam.preprocess)
            whole[torch.from_numpy(rows)] = torch.from_numpy(loaded)
            found[name] = whole
        return found

    def _faithful(
        self, exam: Exam, some: Sample, target: Tensor, heat: Tensor, costly: Rows
    ) -> dict[str, Column]:
        """Return the measures of faithfulness of maps, (n,) each, NaN where one is not `costly`."""
        place = np.flatnonzero(np.isin(some.rows, costly))
        if not len(place):
            return {}
        part, here = some.take(place), torch.from_numpy(place).to(heat.device)
        columns = {key: np.full(len(some.rows), np.nan) for key in self.faithful}
        for key, measure in self.faithful.items():
            found = measure(exam.model, part.x, target[here], heat[here], ids=part.ids)
            columns[key][place] = found.cpu().numpy()
        exam.tell(len(place) * passes_of_faithful(self.faithful))
        return columns

    def passes(self, images: int, classes: int, beside: int) -> float:
        """Return the passes; see `Evaluation`."""
        count = min(self.images or images, images)
        costly = min(self.faithfulness_images or count, count) if self.faithful else 0
        each = passes_of_all(self.methods) + (self.of == "prediction")
        return count * each + costly * len(self.methods) * passes_of_faithful(self.faithful)

    def columns(self) -> list[str]:
        """Return the columns, those of soft attention among them where they are asked for."""
        measures = [*members("sharpness"), *self.faithful]
        if self.masks:
            for name in members("localisation"):
                measures += [name, f"{name}_chance", f"{name}_centre"]
            measures += members("colour")
        for region in (HAIR,) if self.regions is None else self.regions:
            measures += [f"{region}_share", f"{region}_share_chance"]
        names = [*self.explainers, *([ATTENTION] if self.soft_attention else [])]
        return [f"{name}.{measure}" for name in names for measure in measures]


def attentive(exam: Exam) -> bool:
    """Tell whether a model has soft attention."""
    try:
        attention_of(exam.model)
    except UserError:
        return False
    return True
