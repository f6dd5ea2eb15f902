"""Auto-PGD: projected gradient ascent that needs no step size."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from diascope.attacks.ascent import Ascent, Objective
from diascope.attacks.base import (
    Judge,
    attacks,
    check_images,
    check_labels,
    is_broken,
    judge_or_model,
    warn_if_not_finite,
)
from diascope.attacks.losses import dlr_to, loss_of
from diascope.attacks.threat import Norm, Threat
from diascope.models.frozen import Arithmetic, FrozenModel, check_arithmetic, frozen
from diascope.models.heads import is_multilabel
from diascope.randomness import Noise

APGDLoss = Literal["ce", "margin", "dlr", "dlr-targeted"]


@attacks.register("apgd")
@dataclass(frozen=True, kw_only=True)
class APGD:
    """Ascent whose step size follows the progress of each image (Croce and Hein 2020, section 3).

    In L-inf and L2 as in their algorithm 1; in L1 with sparse steps and shrinking balls (Croce
    and Hein 2021, "Mind the box"). Starts are random: in L2 on the sphere, as in the authors' code;
    in L-inf uniform in the cube, where their code scales the draw to length eps. Every image
    has its own step size, best point and counters, and no image's result depends on its batch.

    norm: "linf", "l2" or "l1". eps: in pixel units, a number or (B,). loss: "ce", "margin",
    "dlr", or "dlr-targeted": one run for each of the `targets` most likely other classes, the
    worst kept (clamped to K - 1; below four classes the margin to the target serves, and with
    one logit or several labels one run on the plain margin). steps, restarts: of each run.
    targeted: y holds the class wanted instead of the true one. rho: the share of steps that must
    raise the loss for the step size to stay. stop_early: an image leaves at its first
    misclassified point, confirmed in float32 on the model itself; without it every image climbs
    to the end, for training. precision: of the gradients; after bfloat16 what still stands is
    climbed on for a tenth of the steps in float32.

    Returns, of the image itself and all points seen, a misclassified one, else that of the
    highest loss ("dlr-targeted": of the highest untargeted ratio among the best of each run).
    Costs `steps` + 2 forwards and `steps` backwards a run, and one forward more.
    """

    norm: Norm = "linf"
    eps: float | Tensor = 8 / 255
    loss: APGDLoss = "ce"
    steps: int = 100
    restarts: int = 1
    targets: int = 9
    targeted: bool = False
    rho: float = 0.75
    stop_early: bool = True
    precision: Arithmetic = "auto"

    def __post_init__(self) -> None:
        Threat(self.norm, self.eps)
        check_arithmetic(self.precision)
        if self.loss == "dlr-targeted":
            if self.targeted:
                raise ValueError("loss='dlr-targeted' finds its own targets; targeted needs 'ce'")
        else:
            loss_of(self.loss)
        for name in ("steps", "restarts", "targets"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)}: at least 1 is needed")
        if not 0 <= self.rho <= 1:
            raise ValueError(f"rho={self.rho}: a share, from 0 to 1")

    @property
    def threat(self) -> Threat:
        """The ball in which the attack stays."""
        return Threat(self.norm, self.eps)

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        start: Tensor | None = None,
        ahead: bool = False,
        judge: Judge | None = None,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return adversarial images for x (B, C, H, W) in [0, 1] and labels y; see `Attack`.

        start: (B, C, H, W), points of the ball to begin one more run from, before the others.
        ahead: begin from these and nowhere else, and leave out the last pass in float32: what this
        does not break is attacked again.
        judge: decides of (x_adv, x, y) which misclassified points count, instead of the model.
        """
        check_images(x, model)
        x, noise = x.detach(), Noise.of(x, generator, ids)
        if not len(x):
            return x.clone()
        with frozen(model, x, precision=self.precision) as net:
            check_labels(net, x, y)
            search = _Search(self, net, x, y, judge)
            for target, begin in self._runs(search, start, noise, ahead=ahead):
                search.run(target, begin)
            if net.precision == "bf16" and self.stop_early and not ahead:
                with frozen(net.original, x, precision="float32") as exact:
                    search.refine(exact)
            warn_if_not_finite(net, search.finite)
        return search.x_adv.contiguous()

    def brief(self) -> APGD:
        """Return the attack in an eighth of the steps, at least 4 of them."""
        return replace(self, steps=max(-(-self.steps // 8), min(self.steps, 4)))

    def _runs(
        self, search: _Search, start: Tensor | None, noise: Noise, *, ahead: bool = False
    ) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield the target (B,) and the start (B, C, H, W) of each run."""
        goals: list[Tensor | None] = [None]
        sphere = self.norm == "l2"
        if self.loss == "dlr-targeted" and search.ranking is not None:
            goals = list(search.ranking[:, : self.targets].unbind(1))
        for place, goal in enumerate(goals):
            if start is not None:
                yield goal, self.threat.project(start.detach().to(search.x.dtype), search.x)
            for restart in range(0 if ahead and start is not None else self.restarts):
                stream = place * self.restarts + restart
                begin = self.threat.random_start(search.x, noise, stream, on_sphere=sphere)
                yield goal, begin


class _Search:
    """The best points of a batch over the runs of an attack, beginning at the images themselves.

    x_adv (B, C, H, W); score (B,); broken (B,) bool; ranking (B, K - 1), the other classes by
    falling logit, or None where the head has no classes to choose from.
    """

    def __init__(
        self, attack: APGD, net: FrozenModel, x: Tensor, y: Tensor, judge: Judge | None
    ) -> None:
        self.attack, self.net, self.x, self.y = attack, net, x, y
        self.threat = attack.threat.on(x)
        self.judge = judge_or_model(judge, net, targeted=attack.targeted)
        self.plain = loss_of(
            "dlr" if attack.loss == "dlr-targeted" else attack.loss, targeted=attack.targeted
        )
        with torch.no_grad():
            logits = net(x)
        self.x_adv, self.finite = x.clone(), logits.isfinite().all(1)
        self.score, self.broken = self._judged(net, x, x, y, logits)
        self.ranking: Tensor | None = None
        if logits.shape[1] > 1 and not is_multilabel(logits, y) and not attack.targeted:
            others = logits.scatter(1, y.long()[:, None], -torch.inf)
            self.ranking = others.sort(stable=True, dim=1, descending=True).indices[:, :-1]

    def run(self, target: Tensor | None, start: Tensor) -> None:
        """Climb from `start`, with `stop_early` those that still stand, and keep what is better."""
        ascent = Ascent(
            self.net,
            self._objective(target),
            self.threat,
            self.judge,
            rho=self.attack.rho,
            targeted=self.attack.targeted,
            stop_early=self.attack.stop_early,
        )
        self._climb(ascent, target, start, self.attack.steps)

    def refine(self, exact: FrozenModel) -> None:
        """Climb on from the best points of those that still stand, in small steps."""
        ascent = Ascent(
            exact,
            self._objective(None),
            self.threat,
            self.judge,
            rho=self.attack.rho,
            targeted=self.attack.targeted,
            first_size=0.25,
            widen=False,
        )
        self._climb(ascent, None, self.x_adv, math.ceil(self.attack.steps / 10))

    def _objective(self, target: Tensor | None) -> Objective:
        if target is None:
            return lambda logits, y, _: self.plain(logits, y)
        return dlr_to

    def _climb(self, ascent: Ascent, target: Tensor | None, start: Tensor, steps: int) -> None:
        standing = ~self.broken if self.attack.stop_early else torch.ones_like(self.broken)
        rows = standing.nonzero()[:, 0]
        if not len(rows):
            return
        y = self.y[rows]
        goal = rows if target is None else target[rows]
        here = replace(ascent, threat=ascent.threat.take(rows))
        points, broken, finite = here(self.x[rows], y, goal, start[rows], steps)
        self.finite[rows] &= finite
        with torch.no_grad():
            score, seen = self._judged(ascent.net, points, self.x[rows], y)
        broken = broken | seen
        gains = (broken & ~self.broken[rows]) | (
            (broken == self.broken[rows]) & (score > self.score[rows])
        )
        better = rows[gains]
        self.x_adv[better], self.score[better] = points[gains], score[gains]
        self.broken[better] = broken[gains]

    def _judged(
        self, net: FrozenModel, x_adv: Tensor, x: Tensor, y: Tensor, logits: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the score of each point and whether it counts as broken, (B,) each."""
        logits = net(x_adv) if logits is None else logits
        broken = is_broken(logits, y, targeted=self.attack.targeted)
        rows = broken.nonzero()[:, 0]
        if len(rows):
            broken = broken.index_put((rows,), self.judge(x_adv[rows], x[rows], y[rows]))
        return self.plain(logits, y).nan_to_num(nan=-torch.inf), broken
