"""The Boundary Attack: a walk along the decision boundary that sees predicted labels only."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diascope.attacks.base import attacks, check_images, check_labels, verdict, warn_if_not_finite
from diascope.attacks.nearby import Nearby
from diascope.attacks.starting_points import Oracle, find_starts
from diascope.attacks.threat import NORMS, Norm, Threat
from diascope.models.changes import changes_if
from diascope.models.frozen import Arithmetic, check_arithmetic, frozen
from diascope.randomness import Noise

_STREAM = 10_000_000  # of the walk's random numbers: one stream a query
_LOOK = 25  # queries between two looks at who has converged
_SPHERICAL = 8  # every so many random proposals, the orthogonal step is tried alone
_LEAP = 8  # every so many queries, the remembered direction is proposed
_BEGIN = 20  # queries before the first of those
_SOURCE_RATE, _SPHERICAL_RATE = 0.25, 0.4  # shares of success that the step sizes are held at
_FORGET = 0.03  # weight of the last answer in the running shares of success
_ANGLE, _LEAST_ANGLE, _MOST_ANGLE = 0.1, 1e-3, 1.2  # of the remembered direction's step, radians
_LEAST_SOURCE, _MOST_SOURCE, _MOST_SPHERICAL = 1e-7, 0.5, 1.0
_PUSHES = (1.0, 1.001, 1.01)  # how much further out a point is tried that float32 does not confirm


@dataclass(frozen=True)
class BoundaryResult:
    """The result of `BoundaryAttack.run`.

    x_adv (B, C, H, W): the nearest misclassified points found, x where there is none (or, with an
    eps, none within it). distance (B,): the L2 distance of the nearest point found, whatever eps;
    0 where the image is misclassified already, inf where nothing was found. queries (B,) int64:
    how often the model was asked about each image. started (B,) bool: whether a misclassified
    point was found at all.
    """

    x_adv: Tensor
    distance: Tensor
    queries: Tensor
    started: Tensor


@attacks.register("boundary")
@dataclass(frozen=True, kw_only=True)
class BoundaryAttack:
    """Walk along the boundary towards the image, on labels alone (Brendel et al. 2018, alg. 1).

    From a misclassified point at distance d, a proposal is a step along a random direction of
    length `spherical_step` * d orthogonal to the line to x, set back onto the sphere around x,
    then `source_step` of the way towards x; it is taken if it is misclassified and nearer. Each
    image has its own noise and step sizes: after each answer (1 or 0) the source step is multiplied
    by step_adaptation ** (answer - 1/4), which holds a quarter of the proposals successful, and
    every eighth time the orthogonal step is tried alone and adapted likewise to 0.4 (the paper:
    around 1/2 for the orthogonal step, fewer for the other).

    Beyond the paper, answers are not thrown away: the directions tried, weighted by their answers,
    add up to an estimate of the boundary's normal, and every eighth query is a step along that, of
    an angle adapted to success (along the circle on which a plane boundary has its nearest
    point, after Reza et al. 2023, CGBA). memory: the number of queries after which an answer counts
    half; 0: the paper's random proposals only.

    norm, eps: None is the minimum-norm attack. With an eps (a number or (B,)), an image leaves as
    soon as its point is within it, and an image whose point is further away is returned unchanged;
    the walk is the same, in L2, for "linf" and "l1", and only the points within those balls count.
    queries: the most an image may cost, everything included but what makes the model fast (it is
    looked at once or thrice more with one image). tolerance: an image whose source step has become
    smaller, its spherical step smaller than the root of it, and whose remembered direction leads
    nowhere, has converged; it leaves at the next multiple of 25 queries. targeted: y holds the
    class wanted.

    Costs at most so many forward passes an image, some 30 of them for the starting
    point, or 50 where there is none. precision: with "bf16" the changes since a point known in
    float32 go through the net in bfloat16, on a CPU and where they can be followed, which some
    passes try first (`diascope.models.changes`; the model's own code is not run for each query
    then). Float32 is asked beside them at the first five queries, at every 25th and wherever a
    margin is within what was seen to be amiss, and where each image has come to after every 25th:
    together a tenth to a third as many passes, which count as no queries. "auto": where the
    hardware gains from it. "float32": everything in float32.
    """

    norm: Norm = "l2"
    eps: float | Tensor | None = None
    queries: int = 5000
    spherical_step: float = 0.01
    source_step: float = 0.01
    step_adaptation: float = 1.5
    memory: int = 1000
    tolerance: float = 1e-6
    targeted: bool = False
    precision: Arithmetic = "auto"

    def __post_init__(self) -> None:
        check_arithmetic(self.precision)
        if self.norm not in NORMS:
            raise ValueError(f"norm='{self.norm}': one of {', '.join(NORMS)}")
        if isinstance(self.eps, Tensor) or (self.eps is not None and not math.isinf(self.eps)):
            limit = torch.as_tensor(self.eps)
            Threat(self.norm, limit[limit != torch.inf])
        if self.queries < 1:
            raise ValueError(f"queries={self.queries}: at least 1 is needed")
        if self.memory < 0 or self.tolerance < 0:
            raise ValueError("memory and tolerance must be at least 0")
        for name in ("spherical_step", "source_step"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: between 0 and 1")
        if self.step_adaptation <= 1:
            raise ValueError(f"step_adaptation={self.step_adaptation}: above 1")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        start: Tensor | None = None,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the nearest misclassified images found (within eps, if given), else x."""
        return self.run(model, x, y, start=start, generator=generator, ids=ids).x_adv

    @torch.no_grad()
    def run(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        start: Tensor | None = None,
        others: Tensor | None = None,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> BoundaryResult:
        """Attack x (B, C, H, W) in [0, 1] with labels y; see `BoundaryResult`.

        start: (B, C, H, W), points to begin at, kept where they are misclassified. others:
        (M, C, H, W), images of which each x tries a few as its start.
        """
        check_images(x, model)
        x, noise = x.detach().contiguous(), Noise.of(x, generator, ids)
        distance = x.new_full((len(x),), torch.inf)
        if not len(x):
            return BoundaryResult(
                x.clone(),
                distance,
                torch.zeros_like(noise.ids),
                torch.empty_like(noise.ids, dtype=torch.bool),
            )
        with frozen(model, x, precision="float32") as net:
            check_labels(net, x, y)
            oracle = Oracle(net, y, self.targeted)
            clean = oracle.original(x)
            limit = self.queries - len(_PUSHES)
            starts = find_starts(oracle, x, noise, ~clean, limit, start=start, others=others)
            points = starts.points()
            self._walk(oracle, x, points, starts.found, noise)
            started = self._confirm(oracle, x, points, starts.found) | clean
            warn_if_not_finite(net, oracle.finite)
        distance[started] = Threat("l2", 0).size(points - x)[started].to(distance)
        within = Threat(self.norm, 0).size(points - x) <= self._limit(x)
        return BoundaryResult(
            torch.where(within.view(-1, 1, 1, 1), points, x), distance, oracle.used, started
        )

    def _walk(self, oracle: Oracle, x: Tensor, points: Tensor, found: Tensor, noise: Noise) -> None:
        """Move the `points` (B, C, H, W) of the images that have a start, in place."""
        limit = self.queries - len(_PUSHES)
        rows = (found & (oracle.used < limit)).nonzero()[:, 0]
        left = (limit - oracle.used[rows]).tolist()
        walk = _Walk(self, oracle, rows, x[rows], points[rows], noise.take(rows))
        done, query = self._is_enough(walk, x), 0
        while left:
            keep = [
                n for n, (more, end) in enumerate(zip(left, done, strict=True)) if more and not end
            ]
            if len(keep) < len(left):
                points[walk.rows] = walk.points()
                walk.take(torch.tensor(keep, device=x.device, dtype=torch.long))
                left = [left[n] for n in keep]
                if not left:
                    return
            if not query:
                walk.follow_changes(sum(left))
            length = min(*left, _LOOK - query % _LOOK) if left else 0
            for step in range(query, query + length):
                walk.step(step)
            query, left = query + length, [more - length for more in left]
            walk.settle([not more or query % _LOOK == 0 for more in left])
            done = [False] * len(left) if query % _LOOK else self._is_enough(walk, x)

    def _is_enough(self, walk: _Walk, x: Tensor) -> list[bool]:
        """Return which images have converged, or are within a finite eps."""
        limit = self._limit(x)[walk.rows]
        within = Threat(self.norm, 0).size(walk.away.view(walk.shape)) <= limit
        return (within & limit.isfinite() | walk.converged()).tolist()

    def _confirm(self, oracle: Oracle, x: Tensor, points: Tensor, found: Tensor) -> Tensor:
        """Ask the model itself, pushing outwards what it denies; return what holds, (B,) bool."""
        holds, base = torch.zeros_like(found), points.clone()
        for push in _PUSHES:
            rows = (found & ~holds & (oracle.used < self.queries)).nonzero()[:, 0]
            if not len(rows):
                break
            points[rows] = (x[rows] + push * (base[rows] - x[rows])).clamp(0, 1)
            oracle.used[rows] += 1
            holds[rows] = verdict(
                oracle.net, points[rows], oracle.y[rows], targeted=self.targeted, batch_size=len(x)
            )
        points[~holds] = x[~holds]
        return holds

    def _limit(self, x: Tensor) -> Tensor:
        eps = torch.inf if self.eps is None else self.eps
        return torch.as_tensor(eps, dtype=x.dtype, device=x.device).expand(len(x))


_OF_EACH = ("rows", "x", "away", "distance", "spherical", "source", "angle", "normal", "moved")


class _Walk:
    """The state of the images that still walk: all (n, ...) and on the device."""

    def __init__(
        self,
        attack: BoundaryAttack,
        oracle: Oracle,
        rows: Tensor,
        x: Tensor,
        points: Tensor,
        noise: Noise,
    ) -> None:
        self.attack, self.oracle, self.noise, self.shape = attack, oracle, noise, x.shape
        self.nearby: Nearby | None = None
        self.moved = torch.zeros_like(rows, dtype=torch.bool)  # since it was known in float32
        self.rows, self.x = rows, x.flatten(1)
        self.away = points.flatten(1) - self.x  # from x to the point
        self.distance = _length(self.away)
        one = x.new_ones(len(x))
        self.spherical, self.source = one * attack.spherical_step, one * attack.source_step
        self.angle = one * _ANGLE
        self.normal = torch.zeros_like(self.x)  # not of unit length: a sum of weighted directions
        self.rate = {False: one * _SOURCE_RATE, True: one * _SPHERICAL_RATE}

    def take(self, keep: Tensor) -> None:
        """Let all but the images at the places `keep` leave."""
        for name in _OF_EACH:
            setattr(self, name, getattr(self, name)[keep])
        if self.nearby is not None:
            self.nearby.take(keep)
        self.rate = {alone: rate[keep] for alone, rate in self.rate.items()}
        self.noise, self.shape = self.noise.take(keep), torch.Size((len(keep), *self.shape[1:]))

    def points(self) -> Tensor:
        """Return the points of the walk, (n, C, H, W)."""
        return (self.x + self.away).clamp(0, 1).view(self.shape)

    def converged(self) -> Tensor:
        """Return whether no step leads on, (n,) bool."""
        tolerance = self.attack.tolerance
        stuck = (self.source < tolerance) & (self.spherical < math.sqrt(tolerance))
        return stuck & (self.angle < 2 * _LEAST_ANGLE) if self.attack.memory else stuck

    def step(self, query: int) -> None:
        """Make one query of every image: the numbered one since the walk began."""
        if self.attack.memory and query >= _BEGIN and query % _LEAP == _LEAP - 1:
            self._leap()
        else:
            number = query - query // _LEAP if self.attack.memory else query
            self._propose(query, alone=number % _SPHERICAL == _SPHERICAL - 1)

    def _propose(self, query: int, *, alone: bool) -> None:
        """Try a random direction; `alone`: the orthogonal step without the other, not taken."""
        attack = self.attack
        eta = self._orthogonal(directions(self.noise, self.x.shape[1], _STREAM + query).to(self.x))
        scale = (1 + self.spherical.square()).rsqrt()
        if not alone:
            scale = scale * (1 - self.source)
        move = self.away * scale[:, None] + eta * (scale * self.spherical * self.distance)[:, None]
        answer = self._ask(move, take=not alone).to(self.x.dtype)
        rate = self.rate[alone]
        if attack.memory:
            if not alone:
                self.normal *= 0.5 ** (1 / attack.memory)
            self.normal += eta * (answer - rate)[:, None]
        rate += _FORGET * (answer - rate)
        if alone:
            growth = attack.step_adaptation ** (answer - _SPHERICAL_RATE)
            self.spherical = (self.spherical * growth).clamp_max(_MOST_SPHERICAL)
        else:
            growth = attack.step_adaptation ** (answer - _SOURCE_RATE)
            self.source = (self.source * growth).clamp(_LEAST_SOURCE, _MOST_SOURCE)

    def _leap(self) -> None:
        """Try the remembered direction v: x + d cos a (cos a u + sin a v), u away from x."""
        along, cos = self._orthogonal(self.normal), self.angle.cos()
        side = self.distance * cos * self.angle.sin()
        answer = self._ask(self.away * cos.square()[:, None] + along * side[:, None], take=True)
        factor = self.attack.step_adaptation
        self.angle = self.angle * torch.where(answer, factor, 1 / factor)
        self.angle = self.angle.clamp(_LEAST_ANGLE, _MOST_ANGLE)

    def _orthogonal(self, vector: Tensor) -> Tensor:
        """Return the part of `vector` (n, D) orthogonal to the line to x, of unit length."""
        share = (vector * self.away).sum(1) / self.distance.square().clamp_min(1e-30)
        vector = torch.addcmul(vector, self.away, share[:, None], value=-1)
        return vector / _length(vector).clamp_min(1e-30)[:, None]

    def _ask(self, move: Tensor, *, take: bool) -> Tensor:
        """Return whether x + move is misclassified, (n,); with `take`, go there if it is nearer."""
        point = (self.x + move).clamp_(0, 1)
        asked = self.oracle if self.nearby is None else self.nearby
        broken = asked.broken(point.view(self.shape), self.rows)
        if take:
            away = point.sub_(self.x)
            distance = _length(away)
            taken = broken & (distance < self.distance)
            self.away = torch.lerp(self.away, away, taken[:, None].to(away.dtype))
            self.distance = torch.where(taken, distance, self.distance)
            self.moved = self.moved | taken
        return broken

    def follow_changes(self, passes: int) -> None:
        """From now on ask by changes in bfloat16, if that is wanted, can be, and gains."""
        x = self.x.view(self.shape)
        changes = changes_if(self.attack.precision, self.oracle.net, x, passes)
        if changes is not None:
            self.nearby = Nearby(self.oracle, changes, self.points())

    def settle(self, due: list[bool]) -> None:
        """Confirm where the walks that are `due` have come to, and go back from what is denied."""
        if self.nearby is None:
            return
        at = (self.moved & torch.tensor(due, device=self.moved.device)).nonzero()[:, 0]
        if not len(at):
            return
        back = at[self.nearby.settle(self.points()[at], self.rows[at], at)]
        self.moved[at] = False
        self.away[back] = self.nearby.known.x[back].flatten(1) - self.x[back]
        self.distance[back] = _length(self.away[back])


def directions(noise: Noise, size: int, stream: int) -> Tensor:
    """Return random directions, nearly isotropic Gaussian and of any length, float32 (B, size).

    Far cheaper than `Noise.normal`, with an eighth of its hashes: each byte of a hash picks one of
    256 equally likely quantiles of a normal distribution.
    """
    chosen = noise.bits((-(-size // 4),), stream).view(torch.uint8)[:, :size]
    return torch.erfinv(chosen.to(torch.float32).sub_(127.5).div_(128.0))


def _length(vector: Tensor) -> Tensor:
    return torch.linalg.vector_norm(vector, dim=1)  # type: ignore[no-any-return]
