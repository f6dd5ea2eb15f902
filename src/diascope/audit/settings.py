"""What an audit measures, and how hard it tries."""

from __future__ import annotations

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
    image size. attack: any attack's settings, its norm and eps replaced. images: how many to
    audit, None for all. cases: how many to show. shown_epsilons: at how many epsilons a case is
    shown under attack. replicates: of the bootstrap. data_checks: whether images are checked for
    duplicates, leakage and shortcuts. budget: how hard to try, see `effort.Effort`; effort: the
    numbers of it that are set otherwise. positive: the classes whose detection is the model's
    purpose, for the operating point; sensitivity: that which its threshold must reach on
    validation images. attributes: columns of the table by whose values accuracy is told apart.
    """

    norm: Literal["linf", "l2"] = "l2"
    epsilons: tuple[float, ...] | None = None
    attack: Mapping[str, Any] = Field(default_factory=lambda: {"name": "pgd", "steps": 20})
    explainer: Mapping[str, Any] = Field(default_factory=lambda: {"name": "gradient"})
    images: int | None = Field(default=None, ge=1)
    cases: int = Field(default=12, ge=0)
    shown_epsilons: int = Field(default=3, ge=1)
    batch_size: int = Field(default=64, ge=1)
    replicates: int = Field(default=2000, ge=100)
    data_checks: bool = True
    budget: Budget = "standard"
    effort: Mapping[str, Any] = Field(default_factory=dict)
    positive: tuple[str, ...] = ()
    sensitivity: float = Field(default=0.9, gt=0, le=1)
    attributes: tuple[str, ...] = ("source",)
    seed: int = 0

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

    def build_effort(self) -> Effort:
        """Return how hard to try."""
        return effort(self.budget, dict(self.effort))

    def build_attack(self) -> Attack:
        """Return the attack, whose eps the curve sets."""
        built: Attack = attacks.build({**self.attack, "norm": self.norm}, "attack")
        return built

    def build_explainer(self) -> Explainer:
        """Return the explainer."""
        built: Explainer = explainers.build(self.explainer, "explainer")
        return built
