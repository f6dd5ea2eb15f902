"""The fast adaptive boundary attack: the smallest perturbation that changes the decision."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from diascope.attacks.base import (
    Judge,
    attacks,
    broken_and_finite,
    check_images,
    check_labels,
    is_broken,
    judge_or_model,
    value_and_gradient,
    warn_if_not_finite,
)
from diascope.attacks.hyperplane import Hyperplane
from diascope.attacks.losses import loss_of, margin_to
from diascope.attacks.threat import NORMS, Norm, Threat
from diascope.models.frozen import Arithmetic, FrozenModel, check_arithmetic, frozen
from diascope.randomness import Noise

_START = 0.1  # where nothing bounds a random start: its radius, as a uniform change of all pixels
_PUSHES = (1.01, 1.03, 1.1)  # how much further out a find is tried that float32 does not confirm
_SECANTS = 3  # steps of the final search


@attacks.register("fab")
@dataclass(frozen=True, kw_only=True)
class FAB:
    """Project onto the linearised decision boundary, pulled towards x (Croce and Hein 2020b).

    "Minimally distorted adversarial examples with a fast adaptive boundary attack", algorithm 1,
    with the targeted runs of AutoAttack (FAB-T). A minimum-norm attack: it looks for the nearest
    misclassified image, and `eps` only says which finds count. Images broken by none within eps
    are returned unchanged, as are those misclassified already.

    norm: "linf", "l2" or "l1". eps: in pixel units, a number or (B,); None (or infinite): the
    nearest image found is returned however far. steps: of each run. restarts: runs from x, then
    from random points. targets: each restart makes one run towards each of so many of the best
    other classes (at most K - 1), on the difference of two logits; None: one run on the nearest of
    all K - 1 linearised boundaries. targeted: y holds the class wanted, and one difference serves,
    as for one logit and several labels. alpha_max, eta, beta: bias towards x, overshoot, length of
    the step back. stop_below_eps: an image broken within eps leaves, for a verdict. precision: of
    the gradients; the last tenth of the steps, and what decides of a find, is in float32.

    Costs steps + 1 forward and `steps` backward passes a run (K backward with targets=None), and
    about five forward passes for the final search.
    """

    norm: Norm = "linf"
    eps: float | Tensor | None = 8 / 255
    steps: int = 100
    restarts: int = 1
    targets: int | None = 9
    targeted: bool = False
    alpha_max: float = 0.1
    eta: float = 1.05
    beta: float = 0.9
    stop_below_eps: bool = True
    precision: Arithmetic = "auto"

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            raise ValueError(f"norm='{self.norm}': one of {', '.join(NORMS)}")
        check_arithmetic(self.precision)
        if isinstance(self.eps, Tensor) or (self.eps is not None and not math.isinf(self.eps)):
            limit = torch.as_tensor(self.eps)
            Threat(self.norm, limit[limit != torch.inf])
        for name in ("steps", "restarts", "targets"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name}={count}: at least 1 is needed")
        if not 0 <= self.alpha_max <= 1:
            raise ValueError(f"alpha_max={self.alpha_max}: a number from 0 to 1")
        if not (self.eta >= 1 and 0 < self.beta <= 1):
            raise ValueError(f"eta={self.eta}, beta={self.beta}: eta >= 1 and beta in (0, 1]")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        judge: Judge | None = None,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the nearest misclassified images within eps, or x where there is none.

        judge: decides of (x_adv, x, y) which misclassified points count, instead of the model.
        """
        stop = self.stop_below_eps
        found, distance = self._search(model, x, y, generator, ids, stop=stop, judge=judge)
        within = distance <= self._limit(x)
        return torch.where(within.view(-1, 1, 1, 1), found, x.detach())

    def minimal(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the nearest misclassified images found, whatever eps, and their distance (B,).

        The distance is 0 for an image misclassified already, and infinite (and the image
        unchanged) where none was found.
        """
        return self._search(model, x, y, generator, ids, stop=False)

    def _search(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        generator: torch.Generator | None,
        ids: Tensor | None,
        *,
        stop: bool,
        judge: Judge | None = None,
    ) -> tuple[Tensor, Tensor]:
        check_images(x, model)
        x, noise = x.detach().contiguous(), Noise.of(x, generator, ids)
        best, distance = x.clone(), x.new_full((len(x),), torch.inf)
        if not len(x):
            return best, distance
        enough = torch.zeros_like(distance)  # nothing is
        if stop:
            limit = self._limit(x)
            enough = torch.where(limit.isfinite(), limit, enough)
        with ExitStack() as stack, torch.no_grad():
            net = stack.enter_context(frozen(model, x, precision=self.precision))
            check_labels(net, x, y)
            exact = net
            if net.precision == "bf16":
                exact = stack.enter_context(frozen(net.original, x, precision="float32"))
            walk = _Walk(self, net, exact, judge)
            logits = exact(x)
            finite = logits.isfinite().all(1)
            distance[walk.judge(x, x, y)] = 0
            rivals = self._rivals(logits.nan_to_num(), y)
            for run in range(self.restarts * len(rivals)):
                rows = (distance > enough).nonzero()[:, 0]
                if not len(rows):
                    break
                rival = rivals[run % len(rivals)]
                begin = x[rows]
                if run >= len(rivals):
                    radius = torch.minimum(distance, self._limit(x))[rows]
                    begin = self._random_start(begin, radius, noise.take(rows), run)
                image, length, ok = walk(
                    x[rows], y[rows], None if rival is None else rival[rows], begin, enough[rows]
                )
                nearer = length < distance[rows]
                best[rows[nearer]], distance[rows[nearer]] = image[nearer], length[nearer]
                finite[rows] &= ok
            rows = ((distance > enough) & distance.isfinite()).nonzero()[:, 0]
            if len(rows):
                best[rows], distance[rows] = walk.refine(x[rows], y[rows], best[rows])
            warn_if_not_finite(net, finite)
        return best, distance

    def _limit(self, x: Tensor) -> Tensor:
        """Return the eps of each image, infinite without one, (B,)."""
        eps = torch.inf if self.eps is None else self.eps
        return torch.as_tensor(eps, dtype=x.dtype, device=x.device).reshape(-1).expand(len(x))

    def _rivals(self, logits: Tensor, y: Tensor) -> list[Tensor | None]:
        """Return the class (B,) that each run heads for; None: the best of the others."""
        count = logits.shape[1]
        if self.targeted or self.targets is None or y.ndim == 2 or count < 3:
            return [None]
        others = logits.scatter(1, y.long()[:, None], -torch.inf)
        return list(others.topk(min(self.targets, count - 1), dim=1).indices.T)

    def _random_start(self, x: Tensor, radius: Tensor, noise: Noise, run: int) -> Tensor:
        """Return a point of the ball of half the radius (B,): of the best find, or of eps."""
        widest = Threat(self.norm, 0.0).size(torch.full_like(x, _START))
        radius = torch.where(radius.isfinite(), radius, widest)
        return Threat(self.norm, radius / 2).random_start(x, noise, run)


@dataclass
class _State:
    """The images of a run that are still in it: x, where they are, and the best they found."""

    rows: Tensor  # (B,) their places in the batch
    x: Tensor
    y: Tensor
    rival: Tensor | None
    at: Tensor
    best: Tensor
    length: Tensor  # (B,) how far the best is, inf if none
    enough: Tensor

    def take(self, keep: Tensor) -> _State:
        """Return the state of some of the images."""
        fields = {k: None if v is None else v[keep] for k, v in vars(self).items()}
        return _State(**fields)  # type: ignore[arg-type]


class _Walk:
    """Runs along the decision boundary: `net` for the gradients, `exact` in float32."""

    def __init__(
        self, attack: FAB, net: FrozenModel, exact: FrozenModel, judge: Judge | None
    ) -> None:
        self.attack, self.net, self.exact = attack, net, exact
        self.strict = judge is not None
        self.judge = judge_or_model(judge, net, targeted=attack.targeted)
        self.threat = Threat(attack.norm, 0.0)
        self.margin = loss_of("margin", targeted=attack.targeted)
        self.switch = attack.steps - math.ceil(attack.steps / 10) if net is not exact else -1

    def __call__(
        self, x: Tensor, y: Tensor, rival: Tensor | None, begin: Tensor, enough: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the nearest image found from `begin`, its distance (inf if none), finiteness (B,).

        An image whose find is confirmed within `enough` (B,) leaves the batch.
        """
        image, length = x.clone(), x.new_full((len(x),), torch.inf)
        finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
        rows = torch.arange(len(x), device=x.device)
        state, net = _State(rows, x, y, rival, begin, image, length, enough), self.net
        for step in range(self.attack.steps):
            if step == self.switch:
                self._confirm(state)
                net = self.exact
            finite[state.rows] &= self._step(net, state)
            if x.device.type != "cpu" and step % 10 != 9:  # each look waits for the GPU
                continue
            settled = self._settled(state)
            if settled is not None:
                done, keep = settled.nonzero()[:, 0], (~settled).nonzero()[:, 0]
                image[state.rows[done]] = state.best[done]
                length[state.rows[done]] = state.length[done]
                state = state.take(keep)
            if not len(state.rows):
                return image, length, finite
        self._look(state, self.exact(state.at))
        self._confirm(state)
        image[state.rows], length[state.rows] = state.best, state.length
        return image, length, finite

    def _step(self, net: FrozenModel, state: _State) -> Tensor:
        """Move every image by one step of algorithm 1; return whether its logits were finite.

        The step back from a misclassified point (equation 10) starts from the boundary linearised
        at that point, so that each step needs the gradient of one point alone.
        """
        attack, x, at = self.attack, state.x, state.at
        logits, value, gradient = self._linearised(net, state)
        broken, finite = self._look(state, logits)
        broken = broken.view(-1, 1, 1, 1)
        base = torch.where(broken, x + attack.beta * (at - x), at)
        boundary = Hyperplane(attack.norm, at, _crossing(value, logits), gradient, 4 * _ulp(x))
        own, home = boundary.steps_from(base, x)
        near, far = (self.threat.size(step) for step in (own, home))
        bias = (near / (near + far).clamp_min(1e-30)).clamp_max(attack.alpha_max)
        bias = bias.view(-1, 1, 1, 1)
        moved = (1 - bias) * (base + attack.eta * own) + bias * (x + attack.eta * home)
        state.at = moved.clamp(*Threat.bounds)
        return finite

    def _linearised(self, net: FrozenModel, state: _State) -> tuple[Tensor, Tensor, Tensor]:
        """Return logits (B, K), the difference that changes sign on the boundary (B,), gradient."""
        rival = state.rival
        if self.attack.targets is None and not self.attack.targeted and state.y.ndim == 1:
            return _nearest_boundary(net, state.at, state.y, self.attack.norm)
        loss = self.margin if rival is None else partial(_margin_to, rival=rival)
        logits, value, gradient = value_and_gradient(net, state.at, state.y, loss)
        return logits, value.to(gradient.dtype).nan_to_num(), gradient.contiguous()

    def _look(self, state: _State, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Keep misclassified points nearer than the best; return `broken_and_finite` (B,)."""
        broken, finite = broken_and_finite(logits, state.y, targeted=self.attack.targeted)
        length = self.threat.size(state.at - state.x)
        nearer = broken & (length < state.length)
        state.best = torch.where(nearer.view(-1, 1, 1, 1), state.at, state.best)
        state.length = torch.where(nearer, length, state.length)
        return broken, finite

    def _settled(self, state: _State) -> Tensor | None:
        """Return which images may leave, confirmed on the model (B,), or None if none may."""
        found = state.length <= state.enough
        rows = found.nonzero()[:, 0]
        seldom = state.x.device.type != "cpu"  # there each new batch size is slow at first
        if len(rows) < (len(found) / 8 if seldom else 1):
            return None
        sure = self.judge(state.best[rows], state.x[rows], state.y[rows])
        found[rows] = sure
        state.length[rows[~sure]] = torch.inf
        if self.strict:
            found[self._further(state, rows[~sure])] = True
        return found

    def _further(self, state: _State, rows: Tensor) -> Tensor:
        """Try finds that do not count as far out as they may be; return which then do, (n,)."""
        x, away = state.x[rows], state.best[rows] - state.x[rows]
        reach = (1 - 1e-6) * state.enough[rows] / self.threat.size(away).clamp_min(1e-30)
        trial = (x + reach.view(-1, 1, 1, 1) * away).clamp(*Threat.bounds)
        sure = self.judge(trial, x, state.y[rows])
        rows, trial, x = rows[sure], trial[sure], x[sure]
        state.best[rows], state.length[rows] = trial, self.threat.size(trial - x)
        return rows

    def _confirm(self, state: _State) -> None:
        """Ask the model itself; push finds further out that it does not confirm, or drop them."""
        rows = state.length.isfinite().nonzero()[:, 0]
        image, x = state.best[rows], state.x[rows]
        for push in (1.0, *_PUSHES):
            if not len(rows):
                return
            trial = (x + push * (image - x)).clamp(*Threat.bounds) if push > 1 else image
            sure = self.judge(trial, x, state.y[rows])
            state.best[rows[sure]] = trial[sure]
            state.length[rows[sure]] = self.threat.size(trial[sure] - x[sure])
            rows, image, x = rows[~sure], image[~sure], x[~sure]
        state.length[rows] = torch.inf

    def refine(self, x: Tensor, y: Tensor, best: Tensor) -> tuple[Tensor, Tensor]:
        """Return misclassified images nearer to x on the way to `best`, and their distance (B,).

        The final search of section 3.4: secants of the margin along the segment, aimed a hundredth
        beyond their root.
        """
        inner, outer = x.new_zeros(len(x)), x.new_ones(len(x))
        at = partial(_between, x, best)
        low, high = (self.margin(self.exact(point), y).to(x.dtype) for point in (x, best))
        for _ in range(_SECANTS):
            share = outer - high * (outer - inner) / (high - low).clamp_min(1e-30)
            share = (share + 0.01 * (outer - share)).nan_to_num(1.0)
            share = torch.minimum(torch.maximum(share, inner), outer)
            logits = self.exact(at(share))
            value = self.margin(logits, y).to(x.dtype)
            broken = is_broken(logits, y, targeted=self.attack.targeted)
            outer, high = torch.where(broken, share, outer), torch.where(broken, value, high)
            inner, low = torch.where(broken, inner, share), torch.where(broken, low, value)
        sure = self.judge(at(outer), x, y)
        best = torch.where(sure.view(-1, 1, 1, 1), at(outer), best)
        return best, self.threat.size(best - x)


def _ulp(x: Tensor) -> float:
    return torch.finfo(x.dtype).eps


def _crossing(value: Tensor, logits: Tensor) -> Tensor:
    """Return the value (B,) or, nearer to the boundary, as much as the logits' rounding hides."""
    hidden = 8 * _ulp(value) * logits.abs().amax(1).to(value.dtype).nan_to_num()
    return torch.copysign(torch.maximum(value.abs(), hidden), value)


def _between(x: Tensor, best: Tensor, share: Tensor) -> Tensor:
    return x + share.view(-1, 1, 1, 1) * (best - x)


def _margin_to(logits: Tensor, y: Tensor, *, rival: Tensor) -> Tensor:
    return margin_to(logits, y, rival)


def _nearest_boundary(
    net: FrozenModel, x: Tensor, y: Tensor, norm: Norm
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the logits, and value and gradient of the nearest of the linearised boundaries.

    Nearest by |z_k - z_y| / |grad (z_k - z_y)| in the dual norm (equation 8); K backward passes.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        logits = net(x)
        own = logits.gather(1, y.long()[:, None])
        rows = [
            torch.autograd.grad(column.sum(), x, retain_graph=True)[0]
            for column in (own, *logits.split(1, dim=1))
        ]
    logits = logits.detach()
    value, gradient = torch.zeros_like(logits[:, 0]), torch.zeros_like(x)
    least = torch.full_like(value, torch.inf)
    order = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}[norm]
    for k, row in enumerate(rows[1:]):
        way, rise = (row - rows[0]).nan_to_num(0.0, 0.0, 0.0), logits[:, k] - own[:, 0]
        length = torch.linalg.vector_norm(way.flatten(1), ord=order, dim=1)
        distance = rise.abs() / length.clamp_min(1e-30)
        nearer = (distance < least) & (y != k)
        least = torch.where(nearer, distance, least)
        value = torch.where(nearer, rise, value)
        gradient = torch.where(nearer.view(-1, 1, 1, 1), way, gradient)
    return logits, value.detach().to(x.dtype), gradient.detach().contiguous()
