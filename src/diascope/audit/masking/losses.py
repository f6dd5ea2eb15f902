"""12. Does another loss or target break more than the one loss of the attack?"""

from __future__ import annotations

import torch

from diascope.audit.masking import MASKING
from diascope.audit.masking.question import Question, images
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome

POINTS, FEW = 5.0, 1

ASKED = Question(
    12,
    "losses",
    "Do several losses and targets, worst case per image, agree with the attack's one loss?",
    "The loss that the attack climbs is blind where another sees: its figure is too good by at "
    "least the difference.",
    "Report the worst case over losses: AutoAttack, or APGD on the logit ratio with targets.",
)


@MASKING.register("losses")
def losses(stand: Stand) -> MaskingOutcome:
    """Attack what the main attack left by other losses and at the most likely other classes."""
    if stand.why_not_beyond:
        return ASKED.undecided(stand.why_not_beyond)
    base, total = stand.main_broken, len(stand.main_broken)
    gains = {name: int((broken & ~base).sum()) for name, broken in stand.losses.items()}
    gained = int((torch.stack(list(stand.losses.values())).any(0) & ~base).sum())
    told = ", ".join(f"{name} {count}" for name, count in gains.items())
    points, worst = 100 * gained / total, 1 - (int(base.sum()) + gained) / total
    evidence = (
        f"at eps {stand.working:.3g} {1 - int(base.sum()) / total:.3f} of {images(total)} "
        f"withstand the main attack and {worst:.3f} all losses together "
        f"({points:.1f} points less: {told})"
    )
    agree = points <= POINTS or gained <= FEW
    return ASKED.decided(agree, evidence, gained=gained, points=points, worst_case=worst)
