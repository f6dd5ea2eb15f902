"""Do models that should see the same look at the same places?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from diascope.errors import UserError, gathered
from diascope.evaluation import agreement_table, noise_stability
from diascope.evaluation.measures import members
from diascope.registry import to_settings
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.evaluations.explaining import (
    Explaining,
    Maps,
    Of,
    Several,
    explained,
    heats,
    one,
    passes_of_all,
)
from diascope.studies.exam import Column, Exam, Measured, Sample

LAST = "last map of "
YARDSTICKS = ("redrawn", "noised", "elsewhere")
Table = Mapping[str, NDArray[Any]]


@EVALUATIONS.register("agreement")
@dataclass(frozen=True, kw_only=True)
class Agreement(Explaining):
    """How alike the maps of a model and of those beside it are, such as other seeds (P1.e).

    explainers: by the name that their columns begin with. of: the class that is explained, the
    same for every model: the "label", or this model's "prediction". images: how many, None for
    all. noise, draws: of the noised yardstick, in pixel units.

    Columns of every measure of agreement: `<explainer>.<measure>`, the mean over the models beside,
    and `_worst`, the least of them. So that it is known how much agreement there can be, and how
    little: `_redrawn`, this model's map with itself at other random draws of the explainer (1
    where it draws none); `_noised`, with its maps of the image under a little noise, the mean over
    draws; `_elsewhere`, with its map of another image, by what all maps share. Differences between
    models are no trivial ones where agreement lies below `_redrawn` and `_noised`.
    """

    explainers: Several = field(default_factory=one(), hash=False)
    of: Of = "label"
    images: int | None = None
    noise: float = 0.01
    draws: int = 2

    def __post_init__(self) -> None:
        if self.images is not None and self.images < 2:
            raise ValueError(f"images={self.images}: at least 2, or null for all")
        if not self.noise > 0 or self.draws < 1:
            raise ValueError(f"noise={self.noise}, draws={self.draws}: above 0, and at least 1")
        _ = self.methods  # raises UserError for mistakes in them

    def __call__(self, exam: Exam) -> Measured:
        """Measure; see `Evaluation`."""
        if not exam.beside:
            raise UserError(
                "agreement: there is no model beside this one: name runs under 'beside', or "
                "beside: seeds with two seeds at least"
            )
        rows, columns = exam.drawn(self.images), dict[str, Column]()
        if len(rows) < 2:
            raise UserError(f"{exam.pixels.dataset.name}: {len(rows)} images: two are needed")
        last = exam.sample(rows[-1:])  # before each image another stands, before the first the last
        previous = heats(exam, self.methods, last, explained(exam, last, self.of))
        with gathered() as doubts:
            for some in exam.batches(rows):
                piece = partial(self._piece, exam, some, previous)
                found = exam.kept(["agreement", some.rows], piece)
                previous = {
                    name: torch.from_numpy(found.pop(f"{LAST}{name}")).to(exam.device)
                    for name in self.methods
                }
                for name, values in found.items():
                    columns.setdefault(name, exam.blank())[some.rows] = values
        about = {
            "explainers": {name: to_settings(method) for name, method in self.methods.items()},
            "of": self.of,
            "beside": list(exam.beside),
            "images": len(rows),
            "doubts": doubts,
        }
        return Measured(columns, about)

    def _piece(self, exam: Exam, some: Sample, previous: Maps) -> dict[str, NDArray[Any]]:
        """Return the columns of some images, (n,) each, and the map of the last, (1, H, W)."""
        target = explained(exam, some, self.of)
        own = heats(exam, self.methods, some, target)
        tables = self._beside(exam, some, target, own)
        tables |= self._yardsticks(exam, some, target, own, previous)
        found: dict[str, NDArray[Any]] = {
            f"{name}.{measure}{ending}": values
            for (name, ending), table in tables.items()
            for measure, values in table.items()
        }
        return found | {f"{LAST}{name}": heat[-1:].cpu().numpy() for name, heat in own.items()}

    def _beside(
        self, exam: Exam, some: Sample, target: Tensor, own: Maps
    ) -> dict[tuple[str, str], Table]:
        """Return the agreement with the models beside, by explainer and ending of the column."""
        of_each: dict[str, list[Table]] = {name: [] for name in self.methods}
        for model in exam.beside.values():
            theirs = heats(exam, self.methods, some, target, model=model)
            for name, found in of_each.items():
                found.append(agreement_table(own[name], theirs[name]))
        tables: dict[tuple[str, str], Table] = {}
        for name, found in of_each.items():
            stacked = {key: np.stack([table[key] for table in found]) for key in found[0]}
            tables[name, ""] = {key: values.mean(0) for key, values in stacked.items()}
            tables[name, "_worst"] = {key: values.min(0) for key, values in stacked.items()}
        return tables

    def _yardsticks(
        self, exam: Exam, some: Sample, target: Tensor, own: Maps, previous: Maps
    ) -> dict[tuple[str, str], Table]:
        """Return the agreement of this model's maps with others of its own."""
        again = heats(exam, self.methods, some, target, purpose="explain again")
        tables: dict[tuple[str, str], Table] = {}
        for name, method in self.methods.items():
            before = own[name].roll(1, 0).clone()
            before[:1] = previous[name]
            noised = noise_stability(
                method,
                exam.model,
                some.x,
                target,
                noise=self.noise,
                draws=self.draws,
                seed=exam.seed,
                ids=some.ids,
            )
            exam.tell(len(some.x) * (1 + self.draws) * passes_of_all({name: method}))
            tables[name, "_redrawn"] = agreement_table(own[name], again[name])
            tables[name, "_elsewhere"] = agreement_table(own[name], before)
            tables[name, "_noised"] = {k: noised[k] for k in tables[name, "_redrawn"]}
        return tables

    def passes(self, images: int, classes: int, beside: int) -> float:
        """Return the passes; see `Evaluation`."""
        maps = 2 + beside + 1 + self.draws
        each = maps * passes_of_all(self.methods) + (self.of == "prediction")
        return min(self.images or images, images) * each

    def columns(self) -> list[str]:
        """Return the columns."""
        endings = ("", "_worst", *(f"_{yardstick}" for yardstick in YARDSTICKS))
        names = [
            f"{name}.{measure}" for name in self.explainers for measure in members("agreement")
        ]
        return [name + ending for name in names for ending in endings]
