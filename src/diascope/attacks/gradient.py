"""The template of the gradient attacks: a start, then steps along the steepest direction."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from diascope.attacks.base import (
    LossFunction,
    check_images,
    is_broken,
    logits_and_gradient,
    verdict,
    warn_if_no_gradient,
    warn_if_not_finite,
)
from diascope.attacks.losses import Loss, loss_of
from diascope.attacks.threat import Norm, Threat
from diascope.models.divergence import kl_divergence
from diascope.models.frozen import Arithmetic, FrozenModel, frozen
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
    the batch, for a verdict; without it every image climbs to the end, for training. precision:
    of the gradients; what stops early in bfloat16 is confirmed in float32 on the model itself
    before it leaves, and what still stands is climbed on for a tenth of the steps in float32.
    """

    norm: Norm = "linf"
    eps: float | Tensor = 8 / 255
    loss: Loss | Literal["kl"] = "ce"
    targeted: bool = False
    restarts: int = 1
    stop_early: bool = False
    precision: Arithmetic = "auto"

    def __post_init__(self) -> None:
        Threat(self.norm, self.eps)
        if self.loss != "kl":
            loss_of(self.loss)
        elif self.targeted or self.stop_early or self.restarts != 1:
            raise ValueError("loss='kl' knows no label: no targets, early stop or restarts")
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
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return adversarial images for x (B, C, H, W) in [0, 1] and labels y; see `Attack`.

        start: (B, C, H, W), points of the ball to begin one more run from, before the others.
        """
        check_images(x)
        x, noise = x.detach(), Noise.of(x, generator, ids)
        if not len(x):
            return x.clone()
        threat = self.threat
        starts = [] if start is None else [threat.project(start.detach().to(x.dtype), x)]
        with frozen(model, x, precision=self.precision) as net:
            for restart in range(self.restarts):
                starts.append(self._start(threat, x, noise, restart))
            x_adv, finite = self._best_of(net, x, y, starts)
            if net.precision == "bf16" and self.stop_early:
                x_adv = self._last_pass(net.original, x, y, x_adv)
            warn_if_not_finite(net, finite)
        return x_adv.contiguous()

    def _best_of(
        self, net: FrozenModel, x: Tensor, y: Tensor, starts: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """Climb from each start; return the best points, and where every logit was finite (B,)."""
        climb = _Climb(self, net, self._loss(net, x))
        best, finite = climb(x, y, starts[0], self.threat)
        if self.stop_early:
            warn_if_no_gradient(climb.moves)
        if len(starts) == 1:
            return best, finite
        score = self._score(net, x, y, best)
        for begin in starts[1:]:
            rows = torch.arange(len(x), device=x.device)
            if self.stop_early:
                rows = score.isfinite().nonzero()[:, 0]
            if not len(rows):
                break
            found, ok = climb(x[rows], y[rows], begin[rows], self.threat.take(rows))
            finite[rows] &= ok
            value = self._score(net, x[rows], y[rows], found)
            better = (value > score[rows]).nonzero()[:, 0]
            best[rows[better]], score[rows[better]] = found[better], value[better]
        return best, finite

    @torch.no_grad()
    def _score(self, net: FrozenModel, x: Tensor, y: Tensor, x_adv: Tensor) -> Tensor:
        """Return the loss of each point, infinite where it is misclassified beyond doubt, (B,)."""
        value = self._loss(net, x)(net(x_adv), y).nan_to_num(-1e5, 1e5, -1e5)
        broken = verdict(net, x_adv, y, targeted=self.targeted, batch_size=len(x))
        return value.masked_fill(broken, torch.inf) if self.stop_early else value + 1e6 * broken

    def _last_pass(self, model: nn.Module, x: Tensor, y: Tensor, x_adv: Tensor) -> Tensor:
        """Climb on in float32 from the points that the model itself still classifies correctly."""
        broken = verdict(model, x_adv, y, targeted=self.targeted, batch_size=len(x))
        rows = (~broken).nonzero()[:, 0]
        if len(rows):
            with frozen(model, x, precision="float32") as net:
                climb = _Climb(self, net, self._loss(net, x), math.ceil(self._steps() / 10))
                x_adv[rows], _ = climb(x[rows], y[rows], x_adv[rows], self.threat.take(rows))
        return x_adv


class _Climb:
    """One run of an attack on a frozen model."""

    def __init__(
        self,
        attack: GradientAttack,
        net: FrozenModel,
        loss: LossFunction,
        steps: int | None = None,
    ) -> None:
        self.attack, self.net, self.loss = attack, net, loss
        self.steps = attack._steps() if steps is None else steps
        self.moves = torch.empty(0, dtype=torch.bool)  # (B,): not stuck at the last call's start

    def __call__(
        self, x: Tensor, y: Tensor, x_adv: Tensor, threat: Threat
    ) -> tuple[Tensor, Tensor]:
        """Return where the climb from `x_adv` ended, and whether every logit was finite (B,)."""
        size = self._sizes(threat, x)  # (B, 1, 1, 1) or (1, 1, 1, 1)
        finite = torch.ones(len(x), dtype=torch.bool, device=x.device)
        self.moves = finite.clone()
        rows, out, velocity = None, None, None
        for step in range(self.steps):
            logits, gradient = logits_and_gradient(self.net, x_adv, y, self.loss)
            ok = logits.isfinite().all(1)
            if step == 0:
                done = is_broken(logits, y, targeted=self.attack.targeted)
                self.moves = gradient.flatten(1).any(1) | done | ~ok
            velocity = self.attack._accumulate(velocity, gradient)
            moved = threat.project(x_adv + size * threat.steepest(velocity, x_adv), x)
            if not self.attack.stop_early:
                finite &= ok
                x_adv = moved
                continue
            if out is None or rows is None:
                out, rows = x_adv.clone(), torch.arange(len(x), device=x.device)
            finite[rows] &= ok
            due = self._due(step, x)
            broken = is_broken(logits, y, targeted=self.attack.targeted)
            if due and self.net.precision == "bf16":
                broken = self._confirmed(broken, x_adv, y)
            x_adv = torch.where(broken.view(-1, 1, 1, 1), x_adv, moved)
            if due:
                out[rows] = x_adv
                keep = (~broken).nonzero()[:, 0]
                if not len(keep):
                    return out, finite
                if len(keep) < len(rows):
                    rows, x, y, x_adv = rows[keep], x[keep], y[keep], x_adv[keep]
                    velocity, threat = velocity[keep], threat.take(keep)
                    size = size[keep] if len(size) > 1 else size
        if out is None or rows is None:
            return x_adv, finite
        out[rows] = x_adv
        return out, finite

    def _confirmed(self, broken: Tensor, x_adv: Tensor, y: Tensor) -> Tensor:
        """Return which of the `broken` (B,) are so to the model itself, in float32."""
        rows = broken.nonzero()[:, 0]
        if not len(rows):
            return broken
        sure = verdict(self.net, x_adv[rows], y[rows], targeted=self.attack.targeted)
        return broken.index_put((rows,), sure)

    def _due(self, step: int, x: Tensor) -> bool:
        """Tell whether broken images leave now: on a GPU not at every step, for each look waits."""
        return x.device.type == "cpu" or step % 4 == 3

    def _sizes(self, threat: Threat, x: Tensor) -> Tensor:
        attack = replace(self.attack, eps=threat.eps)
        return torch.as_tensor(attack._step_size(), dtype=x.dtype, device=x.device).reshape(
            -1, 1, 1, 1
        )
