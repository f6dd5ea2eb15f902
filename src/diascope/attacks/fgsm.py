"""The fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diascope.attacks.base import GradientAttack, attacks


@attacks.register("fgsm")
@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """One step of length eps from the image itself (Goodfellow et al. 2015, section 4).

    x_adv = x + eps * sign(grad_x CE(f(x), y)) for "linf"; for "l2" along the gradient's own
    direction. One forward and one backward pass.
    """

    def _steps(self) -> int:
        return 1

    def _step_size(self) -> float | Tensor:
        return self.eps
