"""4. Does an attack that may do anything break every image?"""

from __future__ import annotations

import math

from diascope.attacks import PGD
from diascope.audit.masking import MASKING
from diascope.audit.masking.question import Question, images
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome

STEPS = 2  # times the steps of the audit

ASKED = Question(
    4,
    "unbounded",
    "Does an unbounded attack reach 100% error?",
    "Within such a ball every image can be turned into one of another class, so that an attack "
    "that fails is broken itself, or has no gradient to follow.",
    "Check that the attack moves at all; try the margin loss, other starts, and Square.",
)


def everything(norm: str, values: int) -> float:
    """Return the radius of the ball of `norm` that holds all images of so many values."""
    return {"linf": 1.0, "l2": math.sqrt(values), "l1": float(values)}[norm]


@MASKING.register("unbounded")
def unbounded(stand: Stand) -> MaskingOutcome:
    """Attack with an eps that bounds nothing, first the main attack, then on the margin."""
    if stand.why_not:
        return ASKED.undecided(stand.why_not)
    eps = everything(stand.norm, stand.x[0].numel())
    rows = stand.rows
    left = rows[~stand.run(stand.main, eps).broken]
    by_main = len(left)
    if by_main:
        climb = PGD(norm=stand.norm, steps=STEPS * stand.steps, loss="margin", random_start=False)
        left = left[~stand.run(climb, eps, left).broken]
    if len(left):
        climb = PGD(norm=stand.norm, steps=STEPS * stand.steps, loss="margin", rel_step_size=0.02)
        left = left[~stand.run(climb, eps, left, purpose="unbounded").broken]
    evidence = (
        f"at {stand.norm} eps {eps:.4g}, which bounds nothing, the main attack left "
        f"{by_main} of {images(len(rows))} standing, and attacks on the margin after it {len(left)}"
    )
    return ASKED.decided(not len(left), evidence, left_by_main=by_main, left=len(left), eps=eps)
