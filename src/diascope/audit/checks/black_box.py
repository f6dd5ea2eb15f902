"""What is the robustness figure of a model worth that gave no gradients?"""

from __future__ import annotations

import math

from diascope.audit.checks import CHECKS
from diascope.audit.results import Finding, Results

_GIVEN = {"scores": "its scores", "labels": "its labels"}


@CHECKS.register("black_box")
def black_box(results: Results) -> list[Finding]:
    """Say of each model that was attacked without its gradients that its figures are bounds."""
    return [
        Finding(
            check="black_box",
            model=model.name,
            severity="low",
            title=f"What {model.name} withstands under attack is an upper bound",
            evidence=(
                f"the attacks were shown {_GIVEN[model.access]} alone, {model.queries:,} images in "
                "all; the checks on masked gradients need gradients, and were left out"
            ),
            meaning=(
                "Few queries find little. Whoever has the weights, or a model trained on like "
                "images, can do more."
            ),
            remedy="Audit the weights it was exported from; or give more queries (effort.queries).",
        )
        for model in results.models
        if model.access != "white box" and not math.isnan(model.curve[-1][0])
    ]
