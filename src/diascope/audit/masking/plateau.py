"""6. Would more steps and restarts break more?"""

from __future__ import annotations

import torch

from diascope.audit.masking import MASKING
from diascope.audit.masking.question import Question, images
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome

POINTS, FEW = 5.0, 1  # a gain up to either is a plateau

ASKED = Question(
    6,
    "plateau",
    "Do more steps and restarts reach a plateau?",
    "The attack had not finished: with more effort it breaks more, and nobody knows how much more "
    "with more still.",
    "Raise the steps and restarts of the audit's attack until its figure no longer moves.",
    "medium",
)


@MASKING.register("plateau")
def plateau(stand: Stand) -> MaskingOutcome:
    """Attack what the main attack left with four times its steps, and three times its restarts."""
    if stand.why_not_beyond:
        return ASKED.undecided(stand.why_not_beyond)
    base, total = stand.main_broken, len(stand.main_broken)
    gains = {name: int((broken & ~base).sum()) for name, broken in stand.stronger.items()}
    gained = int((torch.stack(list(stand.stronger.values())).any(0) & ~base).sum())
    told = ", ".join(f"{name} {count}" for name, count in gains.items())
    points = 100 * gained / total
    evidence = (
        f"at eps {stand.working:.3g} the main attack broke {int(base.sum())} of {images(total)}; "
        f"of the rest more effort broke {gained} ({points:.1f} points: {told})"
    )
    flat = points <= POINTS or gained <= FEW
    return ASKED.decided(flat, evidence, gained=gained, points=points, eps=stand.working)
