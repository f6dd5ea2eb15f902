"""10. Are the outputs logits, and not probabilities?"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from diascope.audit.masking import MASKING
from diascope.audit.masking.meter import Metered
from diascope.audit.masking.question import Question
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome

SUM = 1e-3
POINTS = 2.0

ASKED = Question(
    10,
    "logits",
    "Does the model return logits, not probabilities?",
    "A softmax on top of a softmax is flat: gradients vanish where the model is sure, calibration "
    "and confidence are wrong, and every loss is squeezed.",
    "Return what comes before the softmax or sigmoid; where that cannot be had, their logarithm.",
)


class Unsquashed(nn.Module):
    """The logits behind probabilities: their logarithm, or of one probability the log odds."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B, K)."""
        p: Tensor = self.inner(x).double().clamp_min(1e-30)
        if p.shape[1] == 1:
            return p.log() - (1 - p).clamp_min(1e-30).log()
        return p.log()


@MASKING.register("logits")
def logits(stand: Stand) -> MaskingOutcome:
    """Look at the values for the images, in their reversed colours and as noise.

    Values within [0, 1] that sum to 1, or a single value never outside, are probabilities. Others
    within [0, 1] are, if an attack on their logarithm breaks over two points more.
    """
    count = min(len(stand.x), 16)
    noise = torch.rand(stand.x[:count].shape, generator=stand.generator("logits")).to(stand.x)
    seen = torch.cat([stand.logits, stand.ask(1 - stand.x[:count]), stand.ask(noise)])
    low, high = float(seen.min()), float(seen.max())
    told = f"outputs run from {low:.3g} to {high:.3g}"
    if not bool(seen.isfinite().all()):
        return ASKED.undecided("some outputs are not finite", low=low, high=high)
    if low < 0 or high > 1 or seen.shape[0] < 2:
        return ASKED.passed(told, low=low, high=high)
    off = float((seen.sum(1) - 1).abs().max())
    sums = seen.shape[1] > 1 and off < SUM
    told += f"; each image's sum to 1 within {off:.1g}" if sums else ", never outside [0, 1]"
    if stand.why_not:
        if sums or seen.shape[1] == 1:
            return ASKED.decided(False, told, low=low, high=high)
        return ASKED.undecided(f"{told}; {stand.why_not}", low=low, high=high)
    rows = stand.rows
    model = Unsquashed(Metered(stand.model, stand.meter))
    by_log = stand.run(stand.main, stand.eps, model=model, purpose="attack").broken
    plain = stand.reference.broken
    points = 100 * int((by_log & ~plain).sum()) / len(rows)
    told += (
        f"; at eps {stand.eps:.3g} the attack breaks {int(plain.sum())} of {len(rows)} images, on "
        f"the logarithm of the outputs {int(by_log.sum())}"
    )
    squashed = sums or seen.shape[1] == 1 or points > POINTS
    return ASKED.decided(not squashed, told, low=low, high=high, points=points)
