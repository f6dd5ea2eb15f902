"""5. Does noise break an image that the gradient attack does not?"""

from __future__ import annotations

import torch

from diascope.audit.masking import MASKING
from diascope.audit.masking.question import Question, images
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome
from diascope.randomness import Noise

DRAWS = 16

ASKED = Question(
    5,
    "noise",
    "Does random noise never beat the gradient?",
    "A direction drawn blindly breaks what the gradient does not: the gradient is no guide, and "
    "the figure of the attack is too good.",
    "Attack without gradients (Square), and look for the layer that destroys them.",
)


@MASKING.register("noise")
def noise(stand: Stand) -> MaskingOutcome:
    """Draw points of the ball around each image that the main attack left, and ask the model.

    Half of the draws are points of the ball, half lie on its border, or in its corners for L-inf.
    """
    if stand.why_not_beyond:
        return ASKED.undecided(stand.why_not_beyond)
    rows = stand.rows[~stand.main_broken]
    found = torch.zeros(len(rows), dtype=torch.bool, device=rows.device)
    x, source = stand.x[rows], Noise.of(stand.x[rows], stand.generator("noise"), stand.ids[rows])
    threat = stand.threat(stand.working)
    for draw in range(DRAWS):
        left = (~found).nonzero()[:, 0]
        if not len(left):
            break
        point = threat.random_start(x[left], source.take(left), draw, on_sphere=draw % 2 == 1)
        if draw % 2 == 1 and stand.norm == "linf":
            point = threat.project(x[left] + 2 * (point - x[left]).sign(), x[left])
        found[left] = stand.broken(point, rows[left])
    count = int(found.sum())
    evidence = (
        f"{DRAWS} random points within eps {stand.working:.3g} of each of the {len(rows)} images "
        f"that the main attack left standing broke {images(count)}"
    )
    return ASKED.decided(count == 0, evidence, broken=count, tried=len(rows), eps=stand.working)
