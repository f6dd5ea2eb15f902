"""The momentum iterative fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from diascope.attacks.base import attacks
from diascope.attacks.pgd import PGD


@attacks.register("mifgsm")
@dataclass(frozen=True, kw_only=True)
class MIFGSM(PGD):
    """PGD along an accumulated gradient (Dong et al. 2018, algorithm 1).

    g <- decay * g + grad / |grad|_1, then a step along the steepest direction of g. Starts at the
    image, with steps of eps / steps, as in the paper (its mu = 1 is `decay`); the other fields
    are PGD's. Costs `steps` forward and backward passes a restart.
    """

    decay: float = 1.0
    random_start: bool = False

    def _step_size(self) -> float | Tensor:
        if self.step_size is None and self.rel_step_size is None:
            return self.eps / self.steps
        return super()._step_size()

    def _accumulate(self, velocity: Tensor | None, gradient: Tensor) -> Tensor:
        length = gradient.abs().sum((1, 2, 3), keepdim=True)
        step = gradient / length.clamp_min(1e-30)
        return step if velocity is None else self.decay * velocity + step
