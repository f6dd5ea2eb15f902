"""What the checks on masking cost at most, in forward passes of one image."""

from __future__ import annotations

import math

from diascope.attacks import APGD, FAB, FGSM, PGD, Attack
from diascope.audit.masking.noise import DRAWS as NOISES
from diascope.audit.masking.question import FEWEST
from diascope.audit.masking.stand import FEW, TARGETS
from diascope.audit.masking.stochastic import DRAWS
from diascope.audit.masking.unbounded import STEPS

FROZEN = 8  # passes of one image with which an attack looks at how a model runs


def of_attack(attack: Attack, outputs: int) -> float:
    """Return what one run of an attack on one image costs, a backward pass counting two.

    Each step is a forward and a backward pass; to them come a last tenth of the steps in float32,
    verdicts, and the choice among restarts.
    """
    if stages := getattr(attack, "stages", None):
        return sum(of_attack(stage, outputs) for stage in stages)
    restarts = int(getattr(attack, "restarts", 1))
    if not hasattr(attack, "steps"):
        return restarts * float(getattr(attack, "queries", 1)) + 8
    steps, aims = int(attack.steps), 1
    if isinstance(attack, FAB) or getattr(attack, "loss", "") == "dlr-targeted":
        aims = max(1, min(getattr(attack, "targets", None) or outputs, outputs - 1))
    return (3 * steps + 6) * restarts * aims + 3 * math.ceil(steps / 10) + 8


def most(
    images: int,
    epsilons: int,
    steps: int,
    queries: int,
    *,
    main: Attack,
    others: int = 0,
    outputs: int = 10,
) -> float:
    """Return the passes of all checks on a model that withstands everything.

    epsilons: above 0. others: models to transfer from. outputs: the number of classes.
    """
    few = min(images, FEW)
    pgd, own = of_attack(PGD(steps=steps), outputs), of_attack(main, outputs)
    shared = 2 + epsilons * (own + of_attack(FGSM(), outputs) + 4)
    longer = of_attack(PGD(steps=4 * steps), outputs) if own <= pgd else 4 * own
    targeted = APGD(steps=steps, loss="dlr-targeted", targets=TARGETS)
    losses = 3 * of_attack(APGD(steps=steps), outputs) + of_attack(targeted, outputs)
    unbounded = own + 2 * of_attack(PGD(steps=STEPS * steps), outputs)
    black_box = 2 * (queries + 8) + others * pgd
    each = shared + unbounded + NOISES + longer + 3 * own + losses + black_box
    each += 6 + 2 + own + 2  # gradients; two answers; on the logarithm; at 8 bits
    looked = 3 * own + 40  # returned, two batches; differences
    fewest = own + DRAWS * (own + 2)  # eps 0, averaged
    return (
        images * each + few * looked + min(images, FEWEST) * fewest + FROZEN * (20 + 2 * epsilons)
    )
