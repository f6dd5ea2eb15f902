"""Can the probabilities be believed, and do they warn when the model is attacked?"""

from __future__ import annotations

from collections.abc import Iterator

from diascope.audit.checks import CHECKS
from diascope.audit.parts import Bounds, Calibration
from diascope.audit.results import Finding, ModelResult, Results

MARGIN = 0.05  # of confidence above accuracy
LARGE = 0.15
SURE = 0.75  # a confidence at which nobody looks twice


@CHECKS.register("calibration")
def calibration(results: Results) -> list[Finding]:
    """Find models that are surer than they are right, or sure of what an attack made wrong."""
    found: list[Finding] = []
    for model in results.models:
        for part in model.calibration:
            found += _clean(model, part) if part.eps == 0 else _attacked(results, model, part)
    return found


def _clean(model: ModelResult, part: Calibration) -> Iterator[Finding]:
    """Find a confidence above, or far below, the accuracy of the same images."""
    low, high = part.gap[1:]
    if low > MARGIN:
        yield Finding(
            check="calibration",
            model=model.name,
            severity="high" if low > LARGE else "medium",
            title=f"{model.name} is surer of its answers than it is right",
            evidence=_evidence(part),
            meaning=(
                "A probability of this model promises more than it keeps; a threshold on it lets "
                "too much pass."
            ),
            remedy=(
                "Scale its logits by one temperature fitted on validation images, or train with "
                "label smoothing, and look at the reliability curve again."
            ),
            count=part.images,
        )
    elif high < -LARGE:
        yield Finding(
            check="calibration",
            model=model.name,
            severity="low",
            title=f"{model.name} is right more often than it says",
            evidence=_evidence(part),
            meaning="Its probabilities are too low to be read as chances; the order is unharmed.",
            remedy="Scale its logits by one temperature fitted on validation images.",
            count=part.images,
        )


def _attacked(results: Results, model: ModelResult, part: Calibration) -> Iterator[Finding]:
    """Find answers that an attack made wrong and of which the model is sure."""
    wrong, climbed = part.confidence_wrong, part.attack.get("stop_early") is False
    if not (climbed and wrong[1] > SURE and part.gap[1] > LARGE):
        return
    count = round(part.images * (1 - part.accuracy[0]))
    yield Finding(
        check="calibration",
        model=model.name,
        severity="medium",
        title=f"{model.name} is sure of its wrong answers under attack",
        evidence=(
            f"at {results.norm} eps {part.eps:.3g}: accuracy {_bounds(part.accuracy)}, confidence "
            f"{_bounds(part.confidence)}; of the {count} wrong answers {_bounds(wrong)}"
            + _beside(model)
        ),
        meaning=(
            f"Of wrong answers it is over {SURE:g} sure on average: its probability gives little "
            "reason to send such an image to a second reader."
        ),
        remedy=(
            "Do not take confidence for a guard against manipulated images; train adversarially, "
            "and audit it again."
        ),
        count=count,
    )


def _beside(model: ModelResult) -> str:
    """Return what confidence right answers have without an attack, where it is known."""
    clean = next((part for part in model.calibration if part.eps == 0), None)
    if clean is None or clean.confidence_right[0] != clean.confidence_right[0]:
        return ""
    return f"; of right ones without an attack {clean.confidence_right[0]:.3f}"


def _evidence(part: Calibration) -> str:
    return (
        f"mean confidence {_bounds(part.confidence)}, accuracy {_bounds(part.accuracy)}, "
        f"difference {part.gap[0]:+.3f} [{part.gap[1]:+.3f}, {part.gap[2]:+.3f}]; expected "
        f"calibration error {_bounds(part.ece)}, {part.ece_by_chance:.3f} by chance alone"
    )


def _bounds(bounds: Bounds) -> str:
    value, low, high = bounds
    return f"{value:.3f} [{low:.3f}, {high:.3f}]"
