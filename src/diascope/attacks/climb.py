"""One run of a gradient attack: steps of a fixed length, and what is kept of the way."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from diascope.attacks.base import (
    Judge,
    LossFunction,
    broken_and_finite,
    judge_or_model,
    value_and_gradient,
)
from diascope.attacks.threat import Threat
from diascope.models.frozen import FrozenModel

if TYPE_CHECKING:
    from diascope.attacks.gradient import GradientAttack


class Climb:
    """The climb of a batch on a frozen model.

    loss: what is climbed. judge: which misclassified points count (the model itself without one).
    moves: whether each image of the last call had a gradient at its start, (B,) bool.
    """

    def __init__(
        self,
        attack: GradientAttack,
        net: FrozenModel,
        loss: LossFunction,
        judge: Judge | None = None,
        steps: int | None = None,
    ) -> None:
        self.attack, self.net, self.loss = attack, net, loss
        self.steps = attack._steps() if steps is None else steps
        self.strict = judge is not None
        self.judge = judge_or_model(judge, net, targeted=attack.targeted)
        self.moves = torch.empty(0, dtype=torch.bool)

    def on(self, net: FrozenModel, steps: int) -> Climb:
        """Return the same climb on another frozen model, of other length."""
        return Climb(self.attack, net, self.loss, self.judge if self.strict else None, steps)

    def __call__(
        self, x: Tensor, y: Tensor, x_adv: Tensor, threat: Threat
    ) -> tuple[Tensor, Tensor]:
        """Return where the climb from `x_adv` ended, and whether every logit was finite (B,)."""
        attack, size = self.attack, self._size(threat)
        finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
        best = _Best.at(x_adv) if attack.returns == "best" else None
        rows, out, velocity = None, None, None
        for step in range(self.steps):
            logits, value, gradient = value_and_gradient(self.net, x_adv, y, self.loss)
            broken, ok = self._looked_at(logits, y)
            if step == 0 and attack.stop_early:
                self.moves = gradient.flatten(1).any(1) | broken | ~ok
            velocity = attack._accumulate(velocity, gradient)
            moved = threat.project(x_adv + size * threat.steepest(velocity, x_adv), x)
            if best is not None:
                best.learn(x_adv, value, broken)
            if not attack.stop_early:
                finite &= ok
                x_adv = moved
                continue
            if out is None or rows is None:
                out, rows = x_adv.clone(), torch.arange(len(x), device=x.device)
            finite[rows] &= ok
            due = self._due(step, x)
            if due and (self.strict or self.net.precision == "bf16"):
                broken = self._confirmed(broken, x_adv, x, y)
            x_adv = torch.where(broken.view(-1, 1, 1, 1), x_adv, moved)
            if due:
                out[rows] = x_adv
                keep = (~broken).nonzero()[:, 0]
                if not len(keep):
                    return out, finite
                if len(keep) < len(rows):
                    rows, x, y, x_adv = rows[keep], x[keep], y[keep], x_adv[keep]
                    velocity, threat = velocity[keep], threat.take(keep)
                    size = size[keep] if isinstance(size, Tensor) and len(size) > 1 else size
                    best = None if best is None else best.take(keep)
        if best is not None:
            x_adv = self._best_of(best, x_adv, y)
        if out is None or rows is None:
            return x_adv, finite
        out[rows] = x_adv
        return out, finite

    @torch.no_grad()
    def _best_of(self, best: _Best, x_adv: Tensor, y: Tensor) -> Tensor:
        logits = self.net(x_adv)
        best.learn(x_adv, self.loss(logits, y), self._looked_at(logits, y)[0])
        return best.points

    def _looked_at(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return `broken_and_finite`; nothing is broken where the loss knows no label."""
        broken, finite = broken_and_finite(logits, y, targeted=self.attack.targeted)
        return torch.zeros_like(broken) if self.attack.loss == "kl" else broken, finite

    def _confirmed(self, broken: Tensor, x_adv: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Return which of the `broken` (B,) count."""
        rows = broken.nonzero()[:, 0]
        if not len(rows):
            return broken
        return broken.index_put((rows,), self.judge(x_adv[rows], x[rows], y[rows]))

    def _due(self, step: int, x: Tensor) -> bool:
        """Tell whether broken images leave now.

        On a GPU not at every step, for each look waits; but those that a judge may send back do.
        """
        return self.strict or x.device.type == "cpu" or step % 4 == 3

    def _size(self, threat: Threat) -> float | Tensor:
        """Return the length of a step, a number or (B, 1, 1, 1)."""
        size = replace(self.attack, eps=threat.eps)._step_size()
        return size.reshape(-1, 1, 1, 1) if isinstance(size, Tensor) else size


@dataclass
class _Best:
    """The best point of each image so far (B, C, H, W), its loss and whether it is broken (B,)."""

    points: Tensor
    value: Tensor
    broken: Tensor

    @classmethod
    def at(cls, start: Tensor) -> _Best:
        low = torch.full((len(start),), -torch.inf, dtype=start.dtype, device=start.device)
        return cls(start, low, torch.zeros_like(low, dtype=torch.bool))

    def learn(self, x_adv: Tensor, value: Tensor, broken: Tensor) -> None:
        """Keep the points that are broken while the best are not, or of a higher loss."""
        value = value.to(self.value.dtype).nan_to_num(nan=-torch.inf, posinf=torch.inf)
        better = (broken & ~self.broken) | ((broken == self.broken) & (value > self.value))
        self.points = torch.where(better.view(-1, 1, 1, 1), x_adv, self.points)
        self.value = torch.where(better, value, self.value)
        self.broken = self.broken | broken

    def take(self, keep: Tensor) -> _Best:
        """Return what is known of some of the images."""
        return _Best(self.points[keep], self.value[keep], self.broken[keep])
