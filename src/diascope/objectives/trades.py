"""TRADES: the clean loss, and a prediction that stays the same in the ball."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack
from diascope.objectives.base import objectives
from diascope.objectives.passes import Compared
from diascope.registry import nested


@objectives.register("trades")
@dataclass(frozen=True, kw_only=True)
class TRADES(Compared):
    """CE(x, y) + beta * KL(p(x) || p(x')) (Zhang et al. 2019, equation 5).

    beta: the paper's 1 / lambda, from 1 to 6. inner: what x' climbs. "kl", as in the paper: the
    divergence itself, KL(p(x) || p(x')), in place of the attack's own loss; "attack": what the
    attack climbs by its own settings, or any attack without a loss, such as those that need only
    decisions. The authors take PGD in L-inf of 10 steps of eps/4 from x + 0.001 * N(0, 1), which
    is `PGD(steps=10, rel_step_size=0.25, random_start=False)` here; with random_start it begins
    anywhere in the ball. The options are those of `Compared` and `Passes`.

    Costs the attack, with inner="kl" one forward pass more, and one forward and backward of twice
    the images: with PGD of n steps 7 + 2n units, where a forward pass is 1, a backward pass to
    the input 1, and to the weights 2 (`Adversarial`: 3 + 2n).
    """

    attack: Attack = nested("attack")
    beta: float = 6.0
    inner: Literal["kl", "attack"] = "kl"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta >= 0:
            raise ValueError(f"beta={self.beta}: must be at least 0")
        if self.inner == "kl":
            _climbing_divergence(self.attack)

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
        if self.beta == 0:
            return self._cross_entropy(model(x), y, class_weight)
        attack = _climbing_divergence(self.attack) if self.inner == "kl" else self.attack
        with self._searched(model) as net:
            x_adv = attack(net, x, y, generator=generator, ids=ids)
        clean, changed = self._logits(model, x, x_adv)
        loss = self._cross_entropy(clean, y, class_weight)
        return loss + self.beta * self._divergence(clean, changed, y)


def _climbing_divergence(attack: Any) -> Any:
    """Return the attack with loss="kl", also where it is held by another, such as a clock's."""
    if hasattr(attack, "attack"):
        return replace(attack, attack=_climbing_divergence(attack.attack))
    if not hasattr(attack, "loss"):
        name = type(attack).__name__
        raise ValueError(f"inner='kl': {name} climbs no loss; take PGD, or inner='attack'")
    return replace(attack, loss="kl")
