"""7. Are there gradients at all, and is the loss not flat?"""

from __future__ import annotations

from diascope.attacks.losses import LOSSES
from diascope.audit.masking import MASKING
from diascope.audit.masking.question import Question
from diascope.audit.masking.slopes import slope
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome
from diascope.models.heads import cross_entropy

LEAST = 1e-20  # a gradient shorter than this is lost in float32
ZERO, FLAT = 0.02, 0.9  # shares of the images

ASKED = Question(
    7,
    "gradients",
    "Are gradients neither zero, NaN nor infinite, and is the loss not saturated?",
    "An attack that follows gradients has nothing to follow for these images, and their robustness "
    "is only that of the attack's failure.",
    "Find the layer that rounds, cuts or overflows (round, argmax, detach, sqrt at 0) and attack "
    "around it; where only the cross-entropy is flat, attack the margin or divide the logits.",
)


@MASKING.register("gradients")
def gradients(stand: Stand) -> MaskingOutcome:
    """Take the gradients of cross-entropy and margin at the images, as they are.

    Zero means shorter than 1e-20. The loss is saturated where it is exactly 0 in float32, that is
    where the probability of the true class is exactly 1: the gradient then lacks a term.
    """
    if stand.too_few:
        return ASKED.undecided(stand.too_few)
    x, y = stand.x[stand.rows], stand.y[stand.rows]
    zero, wild, cut = {}, {}, False
    for name in ("ce", "margin"):
        found = slope(stand.target, x, y, LOSSES[name], stand.batch_size)
        finite = found.gradient.flatten(1).isfinite().all(1)
        length = found.gradient.double().flatten(1).norm(dim=1).nan_to_num(nan=1.0)
        zero[name] = float((finite & (length < LEAST)).double().mean())
        wild[name], cut = float((~finite).double().mean()), cut or found.cut
    flat = float((cross_entropy(stand.logits[stand.rows], y) == 0).double().mean())
    evidence = (
        f"of {len(x)} images the gradient of the cross-entropy is zero for {zero['ce']:.0%} and "
        f"not finite for {wild['ce']:.0%}, that of the margin for {zero['margin']:.0%} and "
        f"{wild['margin']:.0%}; the cross-entropy is exactly 0 for {flat:.0%}"
        + ("; autograd finds no way from the logits to the image" if cut else "")
    )
    dead = max(zero.values()) > ZERO or max(wild.values()) > 0 or cut
    only_flat = flat > FLAT and zero["margin"] <= ZERO and max(wild.values()) == 0
    return ASKED.decided(
        not (dead or flat > FLAT),
        evidence,
        "medium" if only_flat else None,
        zero_cross_entropy=zero["ce"],
        zero_margin=zero["margin"],
        not_finite=max(wild.values()),
        saturated=flat,
    )
