"""Training schemes, one file a scheme: (model, x, y) -> loss."""

from diascope.objectives.adversarial import Adversarial
from diascope.objectives.asgt import ASGT
from diascope.objectives.base import Objective, objectives
from diascope.objectives.saliency_guided import SaliencyGuided
from diascope.objectives.sga import SGA
from diascope.objectives.standard import Standard
from diascope.objectives.trades import TRADES

__all__ = [
    "ASGT",
    "SGA",
    "TRADES",
    "Adversarial",
    "Objective",
    "SaliencyGuided",
    "Standard",
    "objectives",
]
