"""2. Does an attack that sees no gradient win against those that do?"""

from __future__ import annotations

import torch

from diascope.audit.masking import MASKING
from diascope.audit.masking.question import Question, images
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome

POINTS = 0.2  # percentage points of accuracy that a black box may win

ASKED = Question(
    2,
    "black_box",
    "Does the white box beat the black box?",
    "An attacker who knows less does better, so the gradients hide ways to break the model that "
    "are there: its robustness to gradient attacks is not robustness.",
    "Trust no figure of a gradient attack here. Report the worst case over Square, Boundary and "
    "transferred examples with many queries, and attack without the layer that hides the gradient.",
)


@MASKING.register("black_box")
def black_box(stand: Stand) -> MaskingOutcome:
    """Count the images that no attack with gradients broke and one without them does."""
    if stand.why_not_beyond:
        return ASKED.undecided(stand.why_not_beyond)
    known, found = stand.white_box, stand.black_box
    total = len(known)
    if bool(known.all()):
        return ASKED.passed(
            f"attacks with gradients together break all {total} images at eps {stand.working:.3g}"
        )
    gains = {name: int((broken & ~known).sum()) for name, broken in found.items()}
    gained = int((torch.stack(list(found.values())).any(0) & ~known).sum())
    told = ", ".join(f"{name} {count}" for name, count in gains.items())
    points = 100 * gained / total
    evidence = (
        f"at eps {stand.working:.3g} attacks with gradients together broke {int(known.sum())} of "
        f"{images(total)}; of the rest, attacks without them broke {gained} ({points:.1f} points: "
        f"{told}; {stand.queries} queries each)"
    )
    return ASKED.decided(
        points <= POINTS, evidence, gained=gained, points=points, eps=stand.working
    )
