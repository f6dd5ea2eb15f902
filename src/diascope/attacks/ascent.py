"""One run of Auto-PGD: an ascent in which every image chooses its own step size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from typing import NamedTuple

import torch
from torch import Tensor

from diascope.attacks.base import is_broken, logits_and_gradient, verdict
from diascope.attacks.threat import Threat
from diascope.models.frozen import FrozenModel

Objective = Callable[[Tensor, Tensor, Tensor], Tensor]  # logits (B, K), labels, target (B,) -> (B,)
MOMENTUM = 0.75  # the share of the new step in the next point (alpha of algorithm 1)


class Outcome(NamedTuple):
    """Where a run ended: points (B, C, H, W), broken and finite (B,) bool."""

    points: Tensor
    broken: Tensor
    finite: Tensor


@dataclass
class State:
    """What a run knows of the images that still climb, one row an image in every tensor."""

    rows: Tensor
    x: Tensor
    y: Tensor
    target: Tensor
    x_adv: Tensor
    before: Tensor
    best: Tensor
    best_gradient: Tensor
    best_loss: Tensor
    last_loss: Tensor
    found: Tensor
    hit: Tensor

    @classmethod
    def at(cls, start: Tensor, x: Tensor, y: Tensor, target: Tensor) -> State:
        """Return the state before the first gradient, at `start` (B, C, H, W)."""
        low = torch.full((len(x),), -torch.inf, dtype=x.dtype, device=x.device)
        rows = torch.arange(len(x), device=x.device)
        zero, hit = torch.zeros_like(x), torch.zeros_like(rows, dtype=torch.bool)
        return cls(rows, x, y, target, start, start, start, zero, low, low, start, hit)

    def learn(self, loss: Tensor, gradient: Tensor) -> None:
        """Keep the point, its gradient and its loss (B,) where it is the best so far."""
        loss = loss.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        better = loss > self.best_loss
        self.best = _choose(better, self.x_adv, self.best)
        self.best_gradient = _choose(better, gradient, self.best_gradient)
        self.best_loss = torch.where(better, loss, self.best_loss)
        self.last_loss = loss


class Halving:
    """The step rule of L-inf and L2 (Croce and Hein 2020, algorithm 1).

    Steps of 2 eps with momentum; at checkpoints the step is halved, and the run goes back to the
    best point, where fewer than `rho` of the last steps raised the loss, or where neither step
    size nor best loss changed since the checkpoint before.
    """

    def __init__(self, threat: Threat, s: State, steps: int, rho: float, size: float = 2.0) -> None:
        self.checks, self.rho, self.since = checkpoints(steps), rho, 0
        self.size = size * _column(threat.eps, s.x)
        self.rises = torch.zeros_like(s.rows)
        self.checked = torch.full_like(s.best_loss, -torch.inf)
        self.halved = torch.ones_like(s.hit)

    def take(self, keep: Tensor) -> None:
        """Keep some of the images."""
        self.size, self.rises = self.size[keep], self.rises[keep]
        self.checked, self.halved = self.checked[keep], self.halved[keep]

    def watch(self, loss: Tensor, last: Tensor) -> None:
        """Count the step if it raised the loss (B,)."""
        self.rises = self.rises + _above(loss, last)

    def revise(self, s: State, step: int) -> Tensor | None:
        """At a checkpoint return where the run goes back to the best point, (B,) bool."""
        if step not in self.checks:
            return None
        seldom = self.rises < self.rho * (step - self.since)
        stuck = ~self.halved & ~_above(s.best_loss, self.checked)
        self.halved = seldom | stuck
        self.size = torch.where(self.halved.view(-1, 1, 1, 1), self.size / 2, self.size)
        self.checked, self.rises, self.since = s.best_loss, torch.zeros_like(self.rises), step
        return self.halved

    def move(self, s: State, gradient: Tensor, threat: Threat, step: int) -> Tensor:
        """Return the next points (B, C, H, W)."""
        ahead = threat.project(s.x_adv + self.size * threat.steepest(gradient, s.x_adv), s.x)
        if step == 0:
            return ahead
        mixed = MOMENTUM * (ahead - s.x_adv) + (1 - MOMENTUM) * (s.x_adv - s.before)
        return threat.project(s.x_adv + mixed, s.x)


class Sparse:
    """The step rule of L1 (Croce and Hein 2021, algorithm 1): as sparse as the best point asks.

    A step of length eps is shared by the steepest k coordinates, k a fifth of them at first and
    then the support of the best point's perturbation over 1.5. Every 4% of the steps: where that
    support shrank by 5% the step is eps again and the run goes back to the best point; elsewhere
    the step shrinks by 1.5, down to eps / 10.
    """

    def __init__(self, threat: Threat, s: State, steps: int, *, dense: bool) -> None:
        self.every = max(round(0.04 * steps), 1)
        self.eps = self.size = _column(threat.eps, s.x)
        self.count = s.x[0].numel()
        support = (s.x_adv != s.x).flatten(1).sum(1)
        self.support = torch.full_like(support, self.count) if dense else support
        self.share = torch.full_like(self.size.flatten(), 0.2) if dense else self._share(support)

    def _share(self, support: Tensor) -> Tensor:
        return support.to(self.size.dtype) / (1.5 * self.count)

    def take(self, keep: Tensor) -> None:
        """Keep some of the images."""
        self.eps, self.size = self.eps[keep], self.size[keep]
        self.support, self.share = self.support[keep], self.share[keep]

    def watch(self, loss: Tensor, last: Tensor) -> None:
        """Need not know."""

    def revise(self, s: State, step: int) -> Tensor | None:
        """Every few steps return where the run goes back to the best point, (B,) bool."""
        if step % self.every:
            return None
        support = (s.best != s.x).flatten(1).sum(1)
        sparser = support < 0.95 * self.support
        shrunk = torch.maximum(self.size / 1.5, self.eps / 10)
        self.size = torch.where(sparser.view(-1, 1, 1, 1), self.eps, shrunk)
        self.support, self.share = support, self._share(support)
        return sparser

    def move(self, s: State, gradient: Tensor, threat: Threat, step: int) -> Tensor:
        """Return the next points (B, C, H, W)."""
        steep = gradient.abs().flatten(1)
        k = (self.share * self.count).long().clamp(1, self.count)
        least = steep.sort(1, descending=True).values.gather(1, k[:, None] - 1)
        sparse = gradient.sign() * (steep >= least).view_as(gradient)
        length = sparse.abs().flatten(1).sum(1).clamp_min(1).view(-1, 1, 1, 1)
        return threat.project(s.x_adv + self.size * sparse / length, s.x)


@dataclass(frozen=True)
class Ascent:
    """The climb of a batch on a frozen model; costs `steps` + 1 forwards and `steps` backwards.

    objective: what is climbed. stop_early: broken images leave, each confirmed in float32.
    """

    net: FrozenModel
    objective: Objective
    threat: Threat
    rho: float = 0.75
    targeted: bool = False
    stop_early: bool = True
    first_size: float = 2.0

    def __call__(self, x: Tensor, y: Tensor, target: Tensor, start: Tensor, steps: int) -> Outcome:
        """Climb from `start` (B, C, H, W); in L1 through balls of 3 eps, 2 eps and eps.

        The larger balls of L1 (Mind the box, section 3.4) take 30% of the steps each; where one
        ends is projected onto the next. Only points of the last can count as broken.
        """
        if self.threat.norm != "l1" or steps < 10:
            return self._climb(x, y, target, start, steps, dense=True)
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
            logits, gradient = self._look(s, last=step == steps)
            loss = self.objective(logits, s.y, s.target)
            if step:
                rule.watch(loss, s.last_loss)
            s.learn(loss, gradient)
            finite[s.rows] &= logits.isfinite().all(1)
            back = rule.revise(s, step) if step else None
            keep = self._leave(s, logits, points, broken, step, last=step == steps)
            if step == steps or (keep is not None and not len(keep)):
                break
            if back is not None:
                s.x_adv = _choose(back, s.best, s.x_adv)
                gradient = _choose(back, s.best_gradient, gradient)
            if keep is not None and len(keep) < len(s.rows):
                s, gradient, threat = _taken(s, keep), gradient[keep], threat.take(keep)
                rule.take(keep)
            s.before, s.x_adv = s.x_adv, rule.move(s, gradient, threat, step)
        return Outcome(points, broken, finite)

    def _look(self, s: State, *, last: bool) -> tuple[Tensor, Tensor]:
        if not last:
            return logits_and_gradient(
                self.net, s.x_adv, s.y, lambda logits, y: self.objective(logits, y, s.target)
            )
        with torch.no_grad():
            return self.net(s.x_adv), s.best_gradient

    def _leave(
        self, s: State, logits: Tensor, points: Tensor, broken: Tensor, step: int, *, last: bool
    ) -> Tensor | None:
        """File the points of images that are broken, at the end of all; return who stays.

        None stands for all of them. On a GPU this looks at every fourth step only, for it waits;
        in between the first broken point of each image is held.
        """
        if self.stop_early:
            hit = is_broken(logits, s.y, targeted=self.targeted)
            s.found = _choose(hit & ~s.hit, s.x_adv, s.found)
            s.hit = s.hit | hit
            if last or s.x.device.type == "cpu" or step % 4 == 3:
                tried = s.hit.nonzero()[:, 0]
                if len(tried):
                    sure = verdict(self.net, s.found[tried], s.y[tried], targeted=self.targeted)
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


def checkpoints(steps: int) -> set[int]:
    """Return the steps ceil(p_j * steps) at which the step size is looked at (section 3.1).

    p_0 = 0, p_1 = 0.22, p_{j+1} = p_j + max(p_j - p_{j-1} - 0.03, 0.06), in whole hundredths.
    """
    found, before, at = set(), 0, 22
    while at < 100:
        found.add(-(-at * steps // 100))
        before, at = at, at + max(at - before - 3, 6)
    return found


def _above(loss: Tensor, other: Tensor) -> Tensor:
    """Return whether a loss is higher by more than its rounding, (B,) bool."""
    return loss > other + 8 * torch.finfo(loss.dtype).eps * other.abs().nan_to_num(posinf=0.0)


def _choose(where: Tensor, new: Tensor, old: Tensor) -> Tensor:
    return torch.where(where.view(-1, 1, 1, 1), new, old)


def _column(eps: float | Tensor, x: Tensor) -> Tensor:
    return torch.as_tensor(eps, dtype=x.dtype, device=x.device).expand(len(x)).view(-1, 1, 1, 1)


def _taken(s: State, keep: Tensor) -> State:
    return State(**{field.name: getattr(s, field.name)[keep] for field in fields(s)})
