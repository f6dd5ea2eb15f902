"""Adversarial training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack
from diascope.models.heads import cross_entropy
from diascope.models.modes import unwrapped
from diascope.objectives.base import objectives
from diascope.registry import nested


@objectives.register("adversarial")
@dataclass(frozen=True, kw_only=True)
class Adversarial:
    """The cross-entropy of attacked images: CE(x', y) (Madry et al. 2018, equation 2.1).

    attack: any attack, which makes x' of x; P1 takes PGD-L2 with 7 steps of eps/5 and a random
    start. mix: the weight of the clean loss added to it, (CE(x', y) + mix * CE(x, y)) / (1 + mix);
    the two branches share one joint forward. The attack sees the model in eval mode; the loss
    leaves it as it was. Costs the attack, and one forward and backward (of twice the images with
    mix).
    """

    attack: Attack = nested("attack")
    mix: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        if self.mix < 0:
            raise ValueError(f"mix={self.mix}: must be at least 0")

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        y: Tensor,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
        class_weight: Tensor | None = None,
    ) -> Tensor:
        """Return the mean loss of images (B, C, H, W) in [0, 1] and labels."""
        x_adv = self.attack(unwrapped(model), x, y, generator=generator, ids=ids)
        weight, smoothing = class_weight, self.label_smoothing
        if self.mix == 0:
            return cross_entropy(model(x_adv), y, weight=weight, label_smoothing=smoothing).mean()
        logits = model(torch.cat([x_adv, x]))
        losses = cross_entropy(logits, torch.cat([y, y]), weight=weight, label_smoothing=smoothing)
        attacked, clean = losses.chunk(2)
        return (attacked.mean() + self.mix * clean.mean()) / (1 + self.mix)
