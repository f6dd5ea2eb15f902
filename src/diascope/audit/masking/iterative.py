"""1. Does the attack of many steps break what a single step breaks?"""

from __future__ import annotations

from diascope.audit.masking import MASKING
from diascope.audit.masking.question import CHANCE, Question, images, outdone
from diascope.audit.masking.stand import Stand
from diascope.audit.parts import MaskingOutcome

SHARE = 0.02  # of the images: fewer are left to chance

ASKED = Question(
    1,
    "iterative",
    "Do iterative attacks beat a single step?",
    "Many small steps end where one large step does not need to go: the gradient misleads away "
    "from the image, and the iterative figure is too good.",
    "Attack from the image itself and with more, smaller steps; look for a layer that changes the "
    "gradient away from clean images, and attack around it (BPDA).",
)


@MASKING.register("iterative")
def iterative(stand: Stand) -> MaskingOutcome:
    """Compare the main attack with FGSM, image by image, at every epsilon.

    An image counts for FGSM where at some epsilon it alone broke it, and for the main attack
    likewise; the sign test tells whether FGSM wins beyond chance.
    """
    if stand.why_not:
        return ASKED.undecided(stand.why_not)
    once, many = stand.single_step, stand.by_epsilon
    if bool((once & many).all()):
        return ASKED.undecided("both attacks break every image at every epsilon")
    alone, other = int((once & ~many).any(0).sum()), int((many & ~once).any(0).sum())
    p = outdone(alone, other)
    at = stand.epsilons.index(stand.eps)
    evidence = (
        f"at some epsilon FGSM alone broke {images(alone)} and the main attack alone {other}, of "
        f"{many.shape[1]} (sign test p {p:.2g}); at eps {stand.eps:.3g} FGSM broke "
        f"{int(once[at].sum())}, the main attack {int(many[at].sum())}"
    )
    worse = p < CHANCE and alone - other > SHARE * many.shape[1]
    return ASKED.decided(not worse, evidence, fgsm_alone=alone, main_alone=other, p=p)
