"""What an audit measures, and how hard it tries."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field, field_validator

from diascope.attacks import Attack, scale_eps
from diascope.attacks.base import attacks
from diascope.audit.effort import Budget, Effort, effort
from diascope.explain import Explainer, explainers
from diascope.settings import Settings


class AuditSettings(Settings):
    """The settings of an audit; every one is kept in its `results.json`.

    epsilons: of the robustness curve, in pixel units; None for a grid of `norm` that suits the
    image size. attack: any attack's settings, its norm and eps replaced; None for the first of
    the effort, as explainer for the first there. images: how many to audit, None for all. cases:
    how many to show, None for what the effort says. shown_epsilons: at how many epsilons a case is
    shown under attack. replicates: of the bootstrap. data_checks: whether images are checked for
    duplicates, leakage and shortcuts. budget: how hard to try, see `effort.Effort`; effort: the
    numbers of it that are set otherwise. positive: the classes whose detection is the model's
    purpose, for the operating point; threshold: the rule that chooses its threshold on validation
    images (see `evaluation.operating.choose_threshold`); sensitivity: that which it must reach
    there; prevalence: of disease where the model is to be used, for predictive values, None for
    that of the audited images. attributes: columns of the table by whose values accuracy is told
    apart. input: what is declared of the input of models that were not trained here, see
    `models.inputs.InputSettings`.
    """

    norm: Literal["linf", "l2"] = "l2"
    epsilons: tuple[float, ...] | None = None
    attack: Mapping[str, Any] | None = None
    explainer: Mapping[str, Any] | None = None
    images: int | None = Field(default=None, ge=1)
    cases: int | None = Field(default=None, ge=0)
    shown_epsilons: int = Field(default=3, ge=1)
    batch_size: int = Field(default=64, ge=1)
    replicates: int = Field(default=2000, ge=100)
    data_checks: bool = True
    budget: Budget = "standard"
    effort: Mapping[str, Any] = Field(default_factory=dict)
    positive: tuple[str, ...] = ()
    threshold: Literal["sensitivity", "youden", "half"] = "sensitivity"
    sensitivity: float = Field(default=0.9, gt=0, le=1)
    prevalence: float | None = Field(default=None, gt=0, lt=1)
    attributes: tuple[str, ...] = ("source",)
    input: Mapping[str, Any] = Field(default_factory=dict)
    seed: int = Field(default=0, ge=0)

    @field_validator("epsilons")
    @classmethod
    def _ascending(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and not (value and all(e >= 0 and math.isfinite(e) for e in value)):
            raise ValueError("give finite epsilons of at least 0, such as 0.25,0.5,1")
        return None if value is None else tuple(sorted({0.0, *value}))

    def grid(self, side: int) -> tuple[float, ...]:
        """Return the epsilons for images of `side` x `side`, 0 first."""
        if self.epsilons is not None:
            return self.epsilons
        if self.norm == "linf":
            return (0.0, *(k / 255 for k in (0.5, 1, 2, 4, 8)))
        return (0.0, *(round(scale_eps(e, side, rule="root"), 4) for e in (0.5, 1, 2, 4, 8)))

    def reference(self, side: int) -> float:
        """Return the epsilon in the middle of the grid; 0 where there is none but 0."""
        positive = [e for e in self.grid(side) if e > 0]
        return positive[len(positive) // 2] if positive else 0.0

    @property
    def shown_cases(self) -> int:
        """How many cases are shown with pictures."""
        return self.build_effort().cases if self.cases is None else self.cases

    def build_effort(self) -> Effort:
        """Return how hard to try."""
        return effort(self.budget, dict(self.effort))

    def build_attack(self) -> Attack:
        """Return the attack, whose eps the curve sets."""
        chosen = self.build_effort()
        given = dict(self.attack or {})
        name = given.get("name", chosen.attacks[0])
        steps = {"steps": chosen.curve_steps} if "steps" in fields_of(attacks[name]) else {}
        settings = {"name": name, **steps, **given, "norm": self.norm}
        built: Attack = attacks.build(settings, "attack")
        return built

    def build_explainer(self) -> Explainer:
        """Return the explainer."""
        chosen = {"name": self.build_effort().explainers[0], **(self.explainer or {})}
        built: Explainer = explainers.build(chosen, "explainer")
        return built


def fields_of(member: type) -> set[str]:
    """Return the names of the settings of a member of a registry."""
    return {field.name for field in dataclasses.fields(member)}
