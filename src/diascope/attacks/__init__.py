"""Adversarial attacks, one file a family: (model, x, y) -> x_adv; and the robustness curve."""

from diascope.attacks.apgd import APGD
from diascope.attacks.autoattack import AutoAttack
from diascope.attacks.base import Attack, at_eps, attacks
from diascope.attacks.boundary import BoundaryAttack, BoundaryResult
from diascope.attacks.curve import RobustnessCurve, robustness_curve
from diascope.attacks.fab import FAB
from diascope.attacks.fgsm import FGSM
from diascope.attacks.independent import independent_accuracy
from diascope.attacks.mifgsm import MIFGSM
from diascope.attacks.minimal import MinimalResult, minimal_search
from diascope.attacks.pgd import PGD
from diascope.attacks.square import Square, SquareResult
from diascope.attacks.threat import Threat, scale_eps

__all__ = [
    "APGD",
    "FAB",
    "FGSM",
    "MIFGSM",
    "PGD",
    "Attack",
    "AutoAttack",
    "BoundaryAttack",
    "BoundaryResult",
    "MinimalResult",
    "RobustnessCurve",
    "Square",
    "SquareResult",
    "Threat",
    "at_eps",
    "attacks",
    "independent_accuracy",
    "minimal_search",
    "robustness_curve",
    "scale_eps",
]
