"""The fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diascope.attacks.base import attacks
from diascope.attacks.gradient import GradientAttack


@attacks.register("fgsm")
@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """One step of length eps from the image itself (Goodfellow et al. 2015, section 4).

    x_adv = x + eps * sign(grad_x CE(f(x), y)) for "linf"; for "l2" and "l1" along the steepest
    direction of that norm. One forward and one backward pass. It has one start, the image.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.restarts != 1:
            raise ValueError(f"restarts={self.restarts}: FGSM has one start; use PGD")

    def _steps(self) -> int:
        return 1

    def _step_size(self) -> float | Tensor:
        return self.eps
