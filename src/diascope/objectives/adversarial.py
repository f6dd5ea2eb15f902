"""Adversarial training."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack
from diascope.objectives.base import objectives
from diascope.objectives.passes import Passes
from diascope.registry import nested


@objectives.register("adversarial")
@dataclass(frozen=True, kw_only=True)
class Adversarial(Passes):
    """The cross-entropy of attacked images: CE(x', y) (Madry et al. 2018, equation 2.1).

    attack: any attack, which makes x' of x; P1 takes PGD-L2 with 7 steps of eps/5 and a random
    start. mix: the weight of the clean loss added to it, (CE(x', y) + mix * CE(x, y)) / (1 + mix).
    The options are those of `Passes`.

    Costs the attack, and one forward and backward (of twice the images with mix): with FGSM 5
    units, where a forward pass is 1, a backward pass to the input 1, and to the weights 2.
    """

    attack: Attack = nested("attack")
    mix: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.mix >= 0:
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
        with self._searched(model) as net:
            x_adv = self.attack(net, x, y, generator=generator, ids=ids)
        if self.mix == 0:
            return self._cross_entropy(model(x_adv), y, class_weight)
        attacked, clean = self._logits(model, x_adv, x)
        loss = self._cross_entropy(attacked, y, class_weight)
        return (loss + self.mix * self._cross_entropy(clean, y, class_weight)) / (1 + self.mix)
