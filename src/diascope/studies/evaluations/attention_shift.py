"""Does what a model looks at move under attack, and what does the attack change?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from diascope.attacks import Attack, at_eps
from diascope.attacks.base import verdict
from diascope.attacks.threat import NORMS, Norm
from diascope.audit.attackers import passes_of
from diascope.audit.masking.meter import Meter, Metered
from diascope.errors import gathered
from diascope.evaluation import agreement_table, perturbation_table
from diascope.evaluation.measures import members
from diascope.explain import Explainer
from diascope.registry import to_settings
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.evaluations.besieging import build_attack, check_grid, pgd_40
from diascope.studies.evaluations.explaining import (
    Of,
    Several,
    built,
    explained,
    heats,
    one,
    passes_of_all,
)
from diascope.studies.exam import Column, Exam, Measured, Sample, at

PERTURBATION = "perturbation"


@EVALUATIONS.register("attention_shift")
@dataclass(frozen=True, kw_only=True)
class AttentionShift:
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

    @cached_property
    def methods(self) -> dict[str, Explainer]:
        """The explainers by name."""
        return built(self.explainers)

    @cached_property
    def built(self) -> Attack:
        """The attack."""
        return build_attack(self.attack, self.norm, "attack")

    def __call__(self, exam: Exam) -> Measured:
        """Measure; see `Evaluation`."""
        columns: dict[str, Column] = {}

        def enter(name: str, some: Sample, values: NDArray[Any]) -> None:
            columns.setdefault(name, exam.blank())[some.rows] = values

        rows = exam.drawn(self.images)
        with gathered() as doubts:
            for some in exam.batches(rows):
                target = explained(exam, some, self.of)
                before = heats(exam, self.methods, some, target)
                for eps in sorted(self.epsilons):
                    x_adv, broken = self._attacked(exam, some, eps)
                    enter(at("withstood", eps), some, (~broken).double().cpu().numpy())
                    for name, values in perturbation_table(x_adv - some.x, some.masks).items():
                        enter(at(f"{PERTURBATION}.{name}", eps), some, values)
                    after = heats(exam, self.methods, some, target, x=x_adv)
                    for name in self.methods:
                        found: Mapping[str, NDArray[Any]]
                        found = agreement_table(before[name], after[name])
                        for measure, values in found.items():
                            enter(at(f"{name}.{measure}", eps), some, values)
        about = {
            "explainers": {name: to_settings(method) for name, method in self.methods.items()},
            "attack": {k: v for k, v in to_settings(self.built).items() if k != "eps"},
            "of": self.of,
            "images": len(rows),
            "doubts": doubts,
        }
        return Measured(columns, about)

    def _attacked(self, exam: Exam, some: Sample, eps: float) -> tuple[Tensor, Tensor]:
        """Return attacked images (n, C, H, W), and which are misclassified, (n,)."""
        model = Metered(exam.model, Meter(exam.tell))
        attack = at_eps(self.built, eps)
        x_adv = attack(model, some.x, some.y, generator=exam.seeded("attack"), ids=some.ids)
        return x_adv, verdict(model, x_adv, some.y, batch_size=exam.batch_size)

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
