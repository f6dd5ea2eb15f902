"""What a run of Auto-PGD remembers of each image, and the rules by which its steps shrink."""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from diascope.attacks.threat import Threat

MOMENTUM = 0.75  # the share of the new step in the next point (alpha of algorithm 1)


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

    def take(self, keep: Tensor) -> State:
        """Return the state of some of the images."""
        return State(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})

    def learn(self, loss: Tensor, gradient: Tensor) -> None:
        """Keep the point, its gradient and its loss (B,) where it is the best so far."""
        loss = loss.nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        better = loss > self.best_loss
        self.best = choose(better, self.x_adv, self.best)
        self.best_gradient = choose(better, gradient, self.best_gradient)
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
        way = threat.steepest(gradient, s.x_adv)
        ahead = threat.project(torch.addcmul(s.x_adv, way, self.size), s.x)
        if step == 0:
            return ahead
        rest = 1 - MOMENTUM
        mixed = torch.lerp(s.x_adv, ahead, MOMENTUM).add_(s.x_adv, alpha=rest)
        return threat.project(mixed.sub_(s.before, alpha=rest), s.x)


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
        most = int(k.max()) if k.device.type == "cpu" else self.count  # elsewhere the look waits
        least = steep.topk(most, dim=1).values.gather(1, k[:, None] - 1)
        sparse = gradient.sign() * (steep >= least).view_as(gradient)
        length = sparse.abs().flatten(1).sum(1).clamp_min(1).view(-1, 1, 1, 1)
        return threat.project(s.x_adv + self.size * sparse / length, s.x)


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


def choose(where: Tensor, new: Tensor, old: Tensor) -> Tensor:
    """Return images (B, C, H, W) that are `new` where (B,) bool says so, else `old`."""
    return torch.where(where.view(-1, 1, 1, 1), new, old)


def _column(eps: float | Tensor, x: Tensor) -> Tensor:
    if isinstance(eps, Tensor):
        return eps.to(x).expand(len(x)).reshape(-1, 1, 1, 1)
    return x.new_full((len(x), 1, 1, 1), eps)
