"""One run of Auto-PGD: an ascent in which every image chooses its own step size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from diascope.attacks.ascent_rules import Halving, Sparse, State, choose
from diascope.attacks.base import Judge, broken_and_finite, judge_or_model, value_and_gradient
from diascope.attacks.threat import Threat
from diascope.models.frozen import FrozenModel

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits (B, K), labels, target (B,) -> (B,)


class Outcome(NamedTuple):
    """Where a run ended: points (B, C, H, W), broken and finite (B,) bool."""

    points: Tensor
    broken: Tensor
    finite: Tensor


@dataclass(frozen=True)
class Ascent:
    """The climb of a batch on a frozen model; costs `steps` + 1 forwards and `steps` backwards.

    objective: what is climbed. judge: which misclassified points count (the model itself
    without one). stop_early: images leave whose point does.
    first_size: the first step in eps (L-inf, L2). widen: begin outside the ball (L1).
    """

    net: FrozenModel
    objective: Objective
    threat: Threat
    judge: Judge | None = None
    rho: float = 0.75
    targeted: bool = False
    stop_early: bool = True
    first_size: float = 2.0
    widen: bool = True

    def __call__(self, x: Tensor, y: Tensor, target: Tensor, start: Tensor, steps: int) -> Outcome:
        """Climb from `start` (B, C, H, W); in L1 through balls of 3 eps, 2 eps and eps.

        The larger balls of L1 (Mind the box, section 3.4) take 30% of the steps each; where one
        ends is projected onto the next. Only points of the last can count as broken.
        """
        if self.threat.norm != "l1" or not self.widen:
            return self._climb(x, y, target, start, steps, dense=self.widen)
        third, finite = round(0.3 * steps), torch.ones(len(x), dtype=torch.bool, device=x.device)
        done = Outcome(start, ~finite, finite)
        for factor, part in ((3, third), (2, third), (1, steps - 2 * third)):
            phase = replace(
                self,
                threat=replace(self.threat, eps=factor * self.threat.eps),
                stop_early=self.stop_early and factor == 1,
            )
            begin = phase.threat.project(done.points, x)
            done = phase._climb(x, y, target, begin, part, dense=factor == 3)
            finite = finite & done.finite
        return done._replace(finite=finite)

    def _climb(
        self, x: Tensor, y: Tensor, target: Tensor, start: Tensor, steps: int, *, dense: bool
    ) -> Outcome:
        s, threat = State.at(start, x, y, target), self.threat
        points, broken = start.clone(), torch.zeros_like(s.hit)
        finite = torch.ones_like(broken)
        rule: Halving | Sparse
        if threat.norm == "l1":
            rule = Sparse(threat, s, steps, dense=dense)
        else:
            rule = Halving(threat, s, steps, self.rho, self.first_size)
        for step in range(steps + 1):
            logits, loss, gradient = self._look(s, last=step == steps)
            if step:
                rule.watch(loss, s.last_loss)
            s.learn(loss, gradient)
            broke, ok = broken_and_finite(logits, s.y, targeted=self.targeted)
            finite[s.rows] &= ok
            back = rule.revise(s, step) if step else None
            keep = self._leave(s, broke, points, broken, step, last=step == steps)
            if step == steps or (keep is not None and not len(keep)):
                break
            if back is not None:
                s.x_adv = choose(back, s.best, s.x_adv)
                gradient = choose(back, s.best_gradient, gradient)
            if keep is not None and len(keep) < len(s.rows):
                s, gradient, threat = s.take(keep), gradient[keep], threat.take(keep)
                rule.take(keep)
            s.before, s.x_adv = s.x_adv, rule.move(s, gradient, threat, step)
        return Outcome(points, broken, finite)

    def _look(self, s: State, *, last: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits (B, K), the loss (B,) and its gradient, which the last needs not."""
        if not last:
            return value_and_gradient(
                self.net, s.x_adv, s.y, lambda logits, y: self.objective(logits, y, s.target)
            )
        with torch.no_grad():
            logits = self.net(s.x_adv)
            return logits, self.objective(logits, s.y, s.target), s.best_gradient

    def _leave(
        self, s: State, hit: Tensor, points: Tensor, broken: Tensor, step: int, *, last: bool
    ) -> Tensor | None:
        """File the points of images that are broken (`hit`), at the end of all; return who stays.

        None stands for all of them. On a GPU this looks at every fourth step only, for it waits;
        in between the first broken point of each image is held.
        """
        if self.stop_early:
            host = s.x.device.type == "cpu"
            if host:
                s.found, s.hit = s.x_adv, hit
            else:
                s.found, s.hit = choose(hit & ~s.hit, s.x_adv, s.found), s.hit | hit
            if last or host or step % 4 == 3:
                tried = s.hit.nonzero()[:, 0]
                if len(tried):
                    judge = judge_or_model(self.judge, self.net, targeted=self.targeted)
                    sure = judge(s.found[tried], s.x[tried], s.y[tried])
                    s.hit = torch.zeros_like(s.hit).index_put((tried,), sure)
                    points[s.rows[tried[sure]]] = s.found[tried[sure]]
                    broken[s.rows[tried[sure]]] = True
                stay = (~s.hit).nonzero()[:, 0]
                if last:
                    points[s.rows[stay]] = s.best[stay]
                return stay
        elif last:
            points[s.rows] = s.best
        return None
