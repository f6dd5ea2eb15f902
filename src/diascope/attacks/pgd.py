"""Projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from diascope.attacks.base import attacks
from diascope.attacks.gradient import GradientAttack
from diascope.attacks.threat import Threat
from diascope.randomness import Noise


@attacks.register("pgd")
@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Repeated steps along the steepest direction, projected onto the ball (Madry et al. 2018).

    steps: number of gradient steps. step_size: length of each in pixel units, or None for
    `rel_step_size` * eps; with both None it is 2.5 * eps / steps (Madry's rule), which follows
    an eps that changes. random_start: begin at a random point of the ball, else at the image
    (and then only the first of the restarts; the others are random).
    The ball is that of the original image, so the budget is eps however many the steps.
    P1 trains with norm="l2", steps=7, rel_step_size=0.2. Costs `steps` forward and backward
    passes a restart, and two forward passes a restart if there are several.
    """

    steps: int = 10
    step_size: float | None = None
    rel_step_size: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: at least 1 is needed")
        if self.step_size is not None and self.rel_step_size is not None:
            raise ValueError("give step_size or rel_step_size, not both")

    def brief(self) -> PGD:
        """Return the attack in an eighth of the steps, at least 4 of them, each as much longer."""
        steps = max(-(-self.steps // 8), min(self.steps, 4))
        longer = self.steps / steps
        step, share = self.step_size, self.rel_step_size
        return replace(
            self,
            steps=steps,
            step_size=None if step is None else step * longer,
            rel_step_size=None if share is None else share * longer,
        )

    def _steps(self) -> int:
        return self.steps

    def _step_size(self) -> float | Tensor:
        if self.step_size is not None:
            return self.step_size
        if self.rel_step_size is not None:
            return self.rel_step_size * self.eps
        return 2.5 * self.eps / self.steps

    def _start(self, threat: Threat, x: Tensor, noise: Noise, restart: int) -> Tensor:
        if self.random_start or restart > 0:
            return threat.random_start(x, noise, restart)
        return super()._start(threat, x, noise, restart)
