"""AutoAttack: four attacks that need no tuning, each on what those before left standing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from diascope.attacks.apgd import APGD
from diascope.attacks.base import (
    Judge,
    attacks,
    check_images,
    check_labels,
    judge_or_model,
    warn_if_not_finite,
)
from diascope.attacks.fab import FAB
from diascope.attacks.losses import loss_of
from diascope.attacks.square import Square
from diascope.attacks.threat import Norm, Threat
from diascope.models.frozen import Arithmetic, FrozenModel, frozen
from diascope.models.modes import exactly
from diascope.randomness import Noise, derive

Stage = APGD | FAB | Square


@attacks.register("autoattack")
@dataclass(frozen=True, kw_only=True)
class AutoAttack:
    """APGD on the cross-entropy and on targeted DLR, targeted FAB, Square (Croce and Hein 2020).

    norm: "linf", "l2" or "l1". eps: in pixel units, a number or (B,). version: "standard" is
    APGD-CE (1 restart; 5 in L1), APGD-T, FAB-T and Square, with `steps` steps a run of the first
    three, `targets` other classes (in L1 APGD-T takes 5 at most, as Croce and Hein 2021), and
    `queries` of Square. Targets are clamped to the K - 1 other classes; where the head has no
    classes to choose from (one logit, several labels) the targeted stages climb the plain margin.
    targeted: y holds the class wanted instead of the true one; APGD-T then climbs the margin to
    it. precision: of the gradients and of Square's queries; each stage ends in float32.

    Every stage attacks the images that still stand by the float32 verdict of the model itself,
    so the cost falls with each: an image that withstands all costs about 1,950 forwards,
    1,900 backwards and 5,000 more forwards in the standard version, one that APGD-CE breaks a few.

    Returns the adversarial images; the image itself where it is misclassified already, and the
    point of the highest margin found where nothing broke it.
    """

    norm: Norm = "linf"
    eps: float | Tensor = 8 / 255
    version: Literal["standard"] = "standard"
    steps: int = 100
    targets: int = 9
    queries: int = 5000
    targeted: bool = False
    precision: Arithmetic = "auto"

    def __post_init__(self) -> None:
        Threat(self.norm, self.eps)
        if self.version != "standard":
            raise ValueError(f"version='{self.version}': only 'standard' is known")
        _ = self.stages  # each checks its own settings

    @property
    def threat(self) -> Threat:
        """The ball in which the attack stays."""
        return Threat(self.norm, self.eps)

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The member attacks, in the order in which they are run."""
        sparse = self.norm == "l1"
        cross_entropy = APGD(
            norm=self.norm,
            eps=self.eps,
            steps=self.steps,
            restarts=5 if sparse else 1,
            targeted=self.targeted,
            precision=self.precision,
        )
        to_others = replace(
            cross_entropy,
            loss="margin" if self.targeted else "dlr-targeted",
            targets=min(self.targets, 5) if sparse else self.targets,
            restarts=1,
        )
        boundary = FAB(
            norm=self.norm,
            eps=self.eps,
            steps=self.steps,
            targets=self.targets,
            targeted=self.targeted,
            precision=self.precision,
        )
        search = Square(
            norm=self.norm,
            eps=self.eps,
            queries=self.queries,
            targeted=self.targeted,
            precision=self.precision,
        )
        return cross_entropy, to_others, boundary, search

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
        """Return adversarial images for x (B, C, H, W) in [0, 1] and labels y; see `Attack`.

        judge: decides of (x_adv, x, y) which misclassified points count, instead of the model.
        """
        check_images(x, model)
        x, noise = x.detach(), Noise.of(x, generator, ids)
        if not len(x):
            return x.clone()
        with frozen(model, x, precision=self.precision) as net:
            check_labels(net, x, y)
            return self._run(net, x, y, noise, judge)

    def _run(
        self, net: FrozenModel, x: Tensor, y: Tensor, noise: Noise, judge: Judge | None
    ) -> Tensor:
        counts = judge_or_model(judge, net, targeted=self.targeted)
        x_adv, score, threat = x.clone(), self._score(net, x, y), self.threat.on(x)
        warn_if_not_finite(net, score.isfinite())
        standing = (~counts(x, x, y)).nonzero()[:, 0]
        for place, stage in enumerate(self.stages):
            if not len(standing):
                break
            xs, ys = x[standing], y[standing]
            seeded = torch.Generator().manual_seed(derive(noise.seed, place))
            attack = replace(stage, eps=threat.take(standing).eps)
            found = attack(net, xs, ys, judge=judge, generator=seeded, ids=noise.ids[standing])
            broken, value = counts(found, xs, ys), self._score(net, found, ys)
            better = broken | (value > score[standing])
            rows = standing[better]
            x_adv[rows], score[rows] = found[better], value[better]
            standing = standing[~broken]
        return x_adv

    @torch.no_grad()
    def _score(self, model: nn.Module, x: Tensor, y: Tensor, batch_size: int = 64) -> Tensor:
        """Return the margin of each image by the model itself in float32, (B,)."""
        margin = loss_of("margin", targeted=self.targeted)
        pairs = zip(torch.split(x, batch_size), torch.split(y, batch_size), strict=True)
        with exactly(model) as inner:
            return torch.cat(
                [margin(inner(a if a.dtype == torch.float64 else a.float()), b) for a, b in pairs]
            )
