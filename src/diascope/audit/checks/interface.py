"""Is the model asked as it was meant to be, and does it answer so that it can be measured?"""

from __future__ import annotations

from diascope.audit.checks import CHECKS
from diascope.audit.parts import Severity
from diascope.audit.results import Finding, ModelResult, Results

# of each kind of problem: severity, title, meaning, remedy
_FINDINGS: dict[str, tuple[Severity, str, str, str]] = {
    "probabilities": (
        "medium",
        "{name} returns probabilities, not logits",
        "Probabilities near 0 and 1 are rounded, and with them goes the gradient: gradient attacks "
        "can fail on a model that is fragile. Their logarithms were attacked instead.",
        "Export the model without its last softmax or sigmoid, and audit it again.",
    ),
    "saturated": (
        "high",
        "Probabilities of {name} are exactly 1",
        "There the gradient is zero: an attack that follows it finds nothing, whatever the "
        "model's robustness.",
        "Export the model without its last softmax or sigmoid; until then believe only the "
        "attacks that need no gradient.",
    ),
    "twice": (
        "high",
        "{name} seems to normalise its input twice",
        "It sees images unlike those it was trained on: its accuracy, its robustness and its maps "
        "are those of a misused model.",
        "Leave the normalisation to one place: drop input.mean and input.std, or from the code "
        "around the model.",
    ),
    "other-input": (
        "high",
        "{name} is more accurate when it is fed something else",
        "It sees images unlike those it was trained on: its accuracy, its robustness and its maps "
        "are those of a misused model.",
        "Compare the declared range, mean and std with the code that trained it.",
    ),
    "guessed-input": (
        "medium",
        "What {name} expects as its input is a guess",
        "Should the guess be wrong, every number here is that of a misused model.",
        "Declare input.range, input.mean and input.std as in the code that trained it.",
    ),
    "guessed-size": (
        "medium",
        "The image size of {name} is a guess",
        "A network that takes any size is at its best near the one it was trained at; accuracy "
        "and robustness elsewhere may be lower.",
        "Give the size it was trained at with --size.",
    ),
    "nan": (
        "high",
        "{name} returns numbers that are not finite",
        "Such an image counts as misclassified, with and without an attack, and has no gradient.",
        "Look for a division by zero or an overflow in the model, and audit it again.",
    ),
}


@CHECKS.register("interface")
def interface(results: Results) -> list[Finding]:
    """Find models whose input was guessed or doubtful, or whose output is not what attacks need."""
    found = []
    for model in results.models:
        told = _told(model)
        if model.not_finite:
            images = f"{model.not_finite} of {results.data['images']} images"
            told["nan"] = f"its outputs are not finite for {images}"
        for code, words in told.items():
            severity, title, meaning, remedy = _FINDINGS[code]
            evidence = f"{words[:1].upper()}{words[1:]}"
            found.append(
                Finding(
                    check="interface",
                    model=model.name,
                    severity=severity,
                    title=title.format(name=model.name),
                    evidence=evidence,
                    meaning=meaning,
                    remedy=remedy,
                )
            )
    return found


def _told(model: ModelResult) -> dict[str, str]:
    """Return what is doubtful of a model's interface, by the kind of the problem."""
    if model.interface is None:
        return {}
    return dict(zip(model.interface.codes, model.interface.problems, strict=False))
