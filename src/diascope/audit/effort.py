"""How hard an audit tries: three budgets, every number of which can be set."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from diascope.settings import Settings, validate

Budget = Literal["quick", "standard", "thorough"]
Count = Annotated[int, Field(ge=0)]
Work = Annotated[int, Field(ge=1)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]
Severity = Annotated[int, Field(ge=1, le=5)]


class Effort(Settings):
    """On how many images each stage works, and how hard; None: all images.

    attacks: of the robustness curves, by name; the first is the audit's main attack.
    severities: of the corruptions. explainers: whose maps are measured; the first is shown.
    cases: how many are shown with pictures.
    """

    curve_images: Count | None = 200
    curve_steps: Work = 20
    attacks: Names = ("pgd", "apgd", "apgd-margin")
    attack_images: Count | None = 64
    queries: Work = 200
    masking_images: Count = 24
    masking_steps: Work = 20
    masking_queries: Work = 200
    corruption_images: Count | None = 128
    severities: tuple[Severity, ...] = (1, 2, 3, 4, 5)
    operating_images: Count | None = 64
    operating_steps: Work = 20
    operating_epsilons: Literal["all", "reference"] = "all"
    calibration_images: Count | None = 96
    elsewhere_images: Work | None = 500
    explainers: Names = ("gradient", "smoothgrad", "gradcam")
    map_images: Count | None = 64
    faithfulness_images: Count = 16
    steadiness_images: Count = 16
    sanity_images: Count = 16
    cases: Count = 24


_QUICK: dict[str, Any] = {
    "curve_images": 32,
    "curve_steps": 10,
    "attacks": ("pgd",),
    "attack_images": 16,
    "queries": 100,
    "masking_images": 8,
    "masking_steps": 8,
    "masking_queries": 60,
    "corruption_images": 16,
    "severities": (1, 3, 5),
    "operating_images": 16,
    "operating_steps": 10,
    "operating_epsilons": "reference",
    "calibration_images": 16,
    "elsewhere_images": 200,
    "explainers": ("gradient", "gradcam"),
    "map_images": 16,
    "faithfulness_images": 8,
    "steadiness_images": 8,
    "sanity_images": 8,
    "cases": 8,
}
_THOROUGH: dict[str, Any] = {
    "curve_images": None,
    "curve_steps": 100,
    "attacks": ("pgd", "apgd", "apgd-margin", "square", "fab", "autoattack", "boundary"),
    "attack_images": 128,
    "queries": 5000,
    "masking_images": 128,
    "masking_steps": 100,
    "masking_queries": 1000,
    "corruption_images": None,
    "operating_images": None,
    "operating_steps": 50,
    "calibration_images": None,
    "elsewhere_images": None,
    "explainers": (
        "gradient",
        "smoothgrad",
        "gradcam",
        "fullgrad",
        "integrated_gradients",
        "occlusion",
    ),
    "map_images": None,
    "faithfulness_images": 128,
    "steadiness_images": 128,
    "sanity_images": 64,
    "cases": 48,
}
BUDGETS: dict[str, dict[str, Any]] = {
    "quick": _QUICK,
    "standard": {},
    "thorough": _THOROUGH,
}


def effort(budget: Budget, changes: dict[str, Any] | None = None) -> Effort:
    """Return the effort of a budget with some of its numbers changed."""
    return validate(Effort, {**BUDGETS[budget], **(changes or {})}, "effort")
