"""3. Does accuracy fall as the ball grows, when every epsilon is a run of its own?"""

from __future__ import annotations

from itertools import combinations

from diascope.audit.masking import MASKING
from diascope.audit.masking.question import CHANCE, Question, outdone
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome

SHARE = 0.02

ASKED = Question(
    3,
    "monotone",
    "Does accuracy not rise with epsilon, on independent runs?",
    "A larger ball holds every smaller one, so that accuracy cannot truly rise with epsilon: the "
    "attack fails at the larger one, and the figure there is too good. A curve climbed on "
    "survivors alone cannot show this.",
    "Give the attack more and smaller steps at large epsilons, and start it at the image too.",
)


@MASKING.register("monotone")
def monotone(stand: Stand) -> MaskingOutcome:
    """Compare the main attack at every two epsilons, image by image, each run independent.

    The accuracies are those of `independent_accuracy`; images that withstand the larger epsilon
    and not the smaller are held against those the other way round by a sign test, whose level is
    divided among the pairs.
    """
    if stand.why_not:
        return ASKED.undecided(stand.why_not)
    if len(stand.epsilons) < 2:
        return ASKED.undecided("only one epsilon above 0 is audited")
    broken = stand.by_epsilon
    if bool(broken.all()):
        return ASKED.undecided("the attack breaks every image at every epsilon")
    pairs = list(combinations(range(len(broken)), 2))
    rises = []
    for low, high in pairs:
        regained = int((broken[low] & ~broken[high]).sum())
        lost = int((broken[high] & ~broken[low]).sum())
        rises.append((regained - lost, outdone(regained, lost), low, high))
    sure = [rise for rise in rises if rise[1] < CHANCE / len(pairs)]
    most, p, low, high = max(sure or rises)
    accuracy = [f"{1 - float(b.double().mean()):.3f}" for b in broken]
    grid = ", ".join(f"{e:.3g}" for e in stand.epsilons)
    evidence = (
        f"of {broken.shape[1]} images classified correctly the share that withstands eps {grid} is "
        f"{', '.join(accuracy)}; the largest rise is {max(most, 0)} images, from eps "
        f"{stand.epsilons[low]:.3g} to {stand.epsilons[high]:.3g} (p {p:.2g})"
    )
    rise = bool(sure) and most > SHARE * broken.shape[1]
    return ASKED.decided(not rise, evidence, rise=max(most, 0) / broken.shape[1], p=p)
