"""Saliency-guided adversarial training: mask first, then attack."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack
from diascope.objectives.base import objectives
from diascope.objectives.guided import Guided
from diascope.randomness import Noise
from diascope.registry import nested


@objectives.register("sga")
@dataclass(frozen=True, kw_only=True)
class SGA(Guided):
    """CE(x, y) + lam * KL(p(x) || p(x')), x' the attacked M_k(x) (P3, equations 3 to 6).

    attack: makes x' of the masked image, in the ball around it. P3 takes k = 0.1, lam = 1 and
    FGSM with eps drawn from [0.01, 0.05] for each batch. With k = 0 it is what P3's table 1 calls
    'AT only': by equation 6 CE(x, y) + lam * KL(p(x) || p(attack(x))), which is not CE(x', y);
    that one is `Adversarial`. With lam = 0 it is standard training, as in P3's table 2. The
    options are those of `Guided`, `Compared` and `Passes`.

    Costs the ranking's forward and backward pass to the input, the attack, and one forward and
    backward of twice the images: with FGSM 10 units, where a forward pass is 1, a backward pass
    to the input 1, and to the weights 2 (`Adversarial` with FGSM: 5).
    """

    attack: Attack = nested("attack")

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
        if self.lam == 0:
            return self._cross_entropy(model(x), y, class_weight)
        noise = Noise.of(x, generator, ids)
        with self._net(model, x) as net:
            x_masked = self._masked(net, x, y, noise)
            x_adv = self.attack(net, x_masked, y, generator=generator, ids=ids)
        clean, changed = self._logits(model, x, x_adv)
        loss = self._cross_entropy(clean, y, class_weight)
        return loss + self.lam * self._divergence(clean, changed, y)
