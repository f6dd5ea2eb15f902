"""The template of the gradient attacks: a start, then steps along the steepest direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diascope.attacks.base import (
    Judge,
    LossFunction,
    check_images,
    check_labels,
    warn_if_no_gradient,
    warn_if_not_finite,
)
from diascope.attacks.climb import Climb
from diascope.attacks.losses import Loss, loss_of
from diascope.attacks.threat import Norm, Threat
from diascope.models.divergence import kl_divergence
from diascope.models.frozen import Arithmetic, check_arithmetic, frozen
from diascope.models.heads import is_multilabel
from diascope.randomness import Noise

BESIDE = 1e-3  # in pixel units: how far beside the image the climb of the divergence starts


@dataclass(frozen=True, kw_only=True)
class GradientAttack:
    """Members say how many steps, how long, where they start and what they remember.

    The model is attacked frozen and in eval mode (see `diascope.models.frozen`) and given back as
    it was; only the gradient to the input is computed; the loss is summed over the images, so
    that no image's result depends on its batch. A gradient that is not finite moves nothing.

    norm: "linf", "l2" or "l1". eps: in pixel units, a number or (B,). loss: "ce", "margin" or
    "dlr" (see `diascope.attacks.losses`), or "kl": how far the prediction moves, KL(p(x) || p(x'))
    (Zhang et al. 2019, equation 5), which needs no label, and one forward pass more; it is least
    at the image itself, so that a start there is moved by `BESIDE` of a standard normal, as in
    the authors' code. targeted: y holds the class wanted instead of the true one. restarts: how
    many starts are tried, the best kept: a misclassified point before others, then the highest
    loss. stop_early: an image stops at its first misclassified point and leaves
    the batch, for a verdict; without it every image climbs to the end, for training. returns:
    "last", where the climb ended (training as in the papers; a step that overshoots is not taken
    back), or "best", of all points from the start to the last the one of the highest loss,
    misclassified ones (to the frozen model) before others; it costs one forward more a climb.
    precision: of the gradients; what stops early in bfloat16 is confirmed in float32 on the model
    itself before it leaves, and what still stands is climbed on for a tenth of the steps in
    float32.
    """

    norm: Norm = "linf"
    eps: float | Tensor = 8 / 255
    loss: Loss | Literal["kl"] = "ce"
    targeted: bool = False
    restarts: int = 1
    stop_early: bool = False
    returns: Literal["last", "best"] = "last"
    precision: Arithmetic = "auto"

    def __post_init__(self) -> None:
        Threat(self.norm, self.eps)
        check_arithmetic(self.precision)
        if self.loss != "kl":
            loss_of(self.loss)
        elif self.targeted or self.stop_early or self.restarts != 1:
            raise ValueError("loss='kl' knows no label: no targets, early stop or restarts")
        if self.returns not in ("last", "best"):
            raise ValueError(f"returns='{self.returns}': one of last, best")
        if self.restarts < 1:
            raise ValueError(f"restarts={self.restarts}: at least 1 is needed")

    @property
    def threat(self) -> Threat:
        """The ball in which the attack stays."""
        return Threat(self.norm, self.eps)

    def _steps(self) -> int:
        raise NotImplementedError

    def _step_size(self) -> float | Tensor:
        raise NotImplementedError

    def _start(self, threat: Threat, x: Tensor, noise: Noise, restart: int) -> Tensor:
        if self.loss == "kl":
            return threat.project(x + BESIDE * noise.normal(x.shape[1:]).to(x.dtype), x)
        return x

    def _loss(self, net: nn.Module, x: Tensor) -> LossFunction:
        """Return what is climbed around the images `x`."""
        if self.loss != "kl":
            return loss_of(self.loss, targeted=self.targeted)
        with torch.no_grad():
            clean = net(x)
        return lambda logits, y: kl_divergence(clean, logits, multilabel=is_multilabel(logits, y))

    def _accumulate(self, velocity: Tensor | None, gradient: Tensor) -> Tensor:
        """Return what the steepest direction is taken of; `velocity` is what it last was."""
        return gradient

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
        threat = self.threat.on(x)
        starts = [] if start is None else [threat.project(start.detach().to(x.dtype), x)]
        with frozen(model, x, precision=self.precision) as net:
            if self.loss != "kl":
                check_labels(net, x, y)
            for restart in range(0 if starts and ahead else self.restarts):
                starts.append(self._start(threat, x, noise, restart))
            climb = Climb(self, net, self._loss(net, x), judge)
            x_adv, finite = self._best_of(climb, x, y, starts, threat)
            if self.stop_early and not ahead:
                warn_if_no_gradient(climb.moves)
            if net.precision == "bf16" and self.stop_early and not ahead:
                x_adv = self._last_pass(climb, x, y, x_adv, threat)
            warn_if_not_finite(net, finite)
        return x_adv.contiguous()

    def _best_of(
        self, climb: Climb, x: Tensor, y: Tensor, starts: list[Tensor], threat: Threat
    ) -> tuple[Tensor, Tensor]:
        """Climb from each start; return the best points, and where every logit was finite (B,)."""
        best, finite = climb(x, y, starts[0], threat)
        if len(starts) == 1:
            return best, finite
        score = self._score(climb, x, y, best)
        for begin in starts[1:]:
            rows = torch.arange(len(x), device=x.device)
            if self.stop_early:
                rows = score.isfinite().nonzero()[:, 0]
            if not len(rows):
                break
            found, ok = climb(x[rows], y[rows], begin[rows], threat.take(rows))
            finite[rows] &= ok
            value = self._score(climb, x[rows], y[rows], found)
            better = (value > score[rows]).nonzero()[:, 0]
            best[rows[better]], score[rows[better]] = found[better], value[better]
        return best, finite

    @torch.no_grad()
    def _score(self, climb: Climb, x: Tensor, y: Tensor, x_adv: Tensor) -> Tensor:
        """Return the loss of each point, infinite where it is misclassified beyond doubt, (B,)."""
        value = climb.loss(climb.net(x_adv), y).nan_to_num(-1e5, 1e5, -1e5)
        broken = climb.judge(x_adv, x, y)
        return value.masked_fill(broken, torch.inf) if self.stop_early else value + 1e6 * broken

    def _last_pass(
        self, climb: Climb, x: Tensor, y: Tensor, x_adv: Tensor, threat: Threat
    ) -> Tensor:
        """Climb on in float32 from the points that the model itself still classifies correctly."""
        rows = (~climb.judge(x_adv, x, y)).nonzero()[:, 0]
        if len(rows):
            with frozen(climb.net.original, x, precision="float32") as net:
                exact = climb.on(net, math.ceil(self._steps() / 10))
                x_adv[rows], _ = exact(x[rows], y[rows], x_adv[rows], threat.take(rows))
        return x_adv
