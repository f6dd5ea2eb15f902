"""Training schemes, one file a scheme: (model, x, y) -> loss."""

from diascope.objectives.adversarial import Adversarial
from diascope.objectives.base import Objective, objectives
from diascope.objectives.standard import Standard

__all__ = ["Adversarial", "Objective", "Standard", "objectives"]
