"""9. Does the model draw random numbers, and does the attack average over them?"""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.audit.masking import MASKING
from diascope.audit.masking.averaged import Averaged
from diascope.audit.masking.question import FEWEST, Question
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome
from diascope.models.heads import is_correct

DRAWS = 8
POINTS = 2.0

ASKED = Question(
    9,
    "stochastic",
    "Is the model deterministic, or the attack averaged over its randomness?",
    "The attack saw one draw of the model at a time, so that its gradient is noise in part and its "
    "verdict a matter of luck: a single figure does not exist.",
    "Turn the randomness off (dropout and noise at test time), or report attacks on gradients "
    "averaged over draws, and accuracy as the mean over draws.",
    "medium",
)


@MASKING.register("stochastic")
def stochastic(stand: Stand) -> MaskingOutcome:
    """Ask twice about the same batch; where the answers differ attack the mean of several draws.

    On at most 8 images. The accuracies compared are means over fresh draws of the model, at the
    points of the main attack and at those of the same attack on averaged logits.
    """
    before = _state(stand.x)
    stand.ask(stand.x[:1])
    drew = any(not torch.equal(a, b) for a, b in zip(before, _state(stand.x), strict=True))
    apart = stand.again
    same = "bit by bit" if apart == 0 else f"up to {apart:.1g}"
    if not stand.random:
        also = ", though random numbers were drawn" if drew else ""
        return ASKED.passed(f"two forward passes of one batch agree {same}{also}", apart=apart)
    evidence = f"two forward passes of one batch differ by up to {apart:.3g} in a logit"
    if stand.why_not or stand.eps == 0:
        return ASKED.decided(False, f"{evidence}; not attacked ({stand.why_not})", apart=apart)
    rows = stand.few[:FEWEST]
    alone = _accuracy(stand, stand.reference.points[: len(rows)], rows)
    points = stand.run(
        stand.main, stand.eps, rows, purpose="averaged", model=Averaged(stand.target, DRAWS)
    ).points
    averaged = _accuracy(stand, points, rows)
    gain = 100 * (alone - averaged)
    evidence += (
        f"; at eps {stand.eps:.3g} the mean accuracy over {DRAWS} draws of {len(rows)} images is "
        f"{alone:.3f} after the attack on single draws and {averaged:.3f} after one on {DRAWS} "
        f"draws averaged"
    )
    return ASKED.decided(
        False,
        evidence,
        "high" if gain > POINTS else None,
        apart=apart,
        single=alone,
        averaged=averaged,
    )


def _accuracy(stand: Stand, x: Tensor, rows: Tensor) -> float:
    """Return the mean accuracy over draws of the model, at points (n, C, H, W)."""
    drawn = [is_correct(stand.ask(x), stand.y[rows]) for _ in range(DRAWS)]
    return float(torch.stack(drawn).double().mean())


def _state(x: Tensor) -> list[Tensor]:
    """Return the states of the random number generators that a forward pass may draw from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(x.device)] if x.device.type == "cuda" else states
