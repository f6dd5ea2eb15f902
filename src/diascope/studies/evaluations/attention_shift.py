"""Does what a model looks at move under attack, and what does the attack change?"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

from numpy.typing import NDArray

from diascope.attacks.base import verdict
from diascope.attacks.threat import NORMS, Norm
from diascope.audit.attackers import passes_of
from diascope.audit.masking.meter import Meter, Metered
from diascope.errors import gathered
from diascope.evaluation import agreement_table, perturbation_table
from diascope.evaluation.measures import members
from diascope.registry import to_settings
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.evaluations.besieging import Attacking, check_grid, pgd_40
from diascope.studies.evaluations.explaining import (
    Explaining,
    Of,
    Several,
    explained,
    heats,
    one,
    passes_of_all,
)
from diascope.studies.exam import Column, Exam, Measured, Sample, at

PERTURBATION = "perturbation"


@EVALUATIONS.register("attention_shift")
@dataclass(frozen=True, kw_only=True)
class AttentionShift(Explaining, Attacking):
    """How alike the maps of images and of their attacked selves are, of the same class (P2.e).

    epsilons: in pixel units, above 0. attack: its settings, by default P2's; every image is climbed
    to the end, whether it is broken or not. explainers: by the name that their columns begin with.
    of: the class that is explained, of both: the "label", or what the model "prediction"s of the
    image as it is. images: how many, None for all.

    Columns at each epsilon: `<explainer>.<measure>@<eps>` of every measure of agreement (spearman
    is negative where a map turns over), `perturbation.<measure>@<eps>` of every measure of
    `perturbation_table` (energy inside the mask beside chance, contrast, the range of levels, the
    norms), and `withstood@<eps>`. NaN where a measure is not defined.
    """

    epsilons: tuple[float, ...]
    norm: Norm = "linf"
    attack: dict[str, Any] | str = field(default_factory=pgd_40, hash=False)
    explainers: Several = field(default_factory=one("gradcam"), hash=False)
    of: Of = "label"
    images: int | None = None

    def __post_init__(self) -> None:
        check_grid(self.epsilons, above=0.0)
        if self.images is not None and self.images < 1:
            raise ValueError(f"images={self.images}: at least 1, or null for all")
        for key in self.explainers:
            if key == PERTURBATION:
                raise ValueError(f"explainers: '{key}' is the name of other columns")
        _ = self.methods, self.built  # raise UserError for mistakes in them

    def __call__(self, exam: Exam) -> Measured:
        """Measure; see `Evaluation`."""
        columns: dict[str, Column] = {}
        rows = exam.drawn(self.images)
        with gathered() as doubts:
            for some in exam.batches(rows):
                piece = partial(self._piece, exam, some)
                for name, values in exam.kept(["shift", some.rows], piece).items():
                    columns.setdefault(name, exam.blank())[some.rows] = values
        about = {
            "explainers": {name: to_settings(method) for name, method in self.methods.items()},
            "attack": {k: v for k, v in to_settings(self.built).items() if k != "eps"},
            "of": self.of,
            "images": len(rows),
            "doubts": doubts,
        }
        return Measured(columns, about)

    def _piece(self, exam: Exam, some: Sample) -> dict[str, NDArray[Any]]:
        """Return the columns of some images, (n,) each."""
        found: dict[str, NDArray[Any]] = {}
        target = explained(exam, some, self.of)
        before = heats(exam, self.methods, some, target)
        for eps in sorted(self.epsilons):
            x_adv = self.attacked(exam, some, eps)
            broken = verdict(
                Metered(exam.model, Meter(exam.tell)), x_adv, some.y, batch_size=exam.batch_size
            )
            found[at("withstood", eps)] = (~broken).double().cpu().numpy()
            for name, values in perturbation_table(x_adv - some.x, some.masks).items():
                found[at(f"{PERTURBATION}.{name}", eps)] = values
            after = heats(exam, self.methods, some, target, x=x_adv)
            for name in self.methods:
                for measure, values in agreement_table(before[name], after[name]).items():
                    found[at(f"{name}.{measure}", eps)] = values
        return found

    def passes(self, images: int, classes: int, beside: int) -> float:
        """Return the passes; see `Evaluation`."""
        each = passes_of(self.built, classes) + passes_of_all(self.methods)
        first = passes_of_all(self.methods) + (self.of == "prediction")
        return min(self.images or images, images) * (first + len(self.epsilons) * each)

    def columns(self) -> list[str]:
        """Return the columns."""
        shift = [
            f"{name}.{measure}" for name in self.explainers for measure in members("agreement")
        ]
        change = [*NORMS, *members("perturbation"), "energy_inside_chance"]
        names = [*shift, *(f"{PERTURBATION}.{name}" for name in change), "withstood"]
        return [at(name, eps) for name in names for eps in sorted(self.epsilons)]
