"""Adversarial saliency-guided training: attack first, then mask."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack
from diascope.objectives.base import objectives
from diascope.objectives.guided import Guided
from diascope.randomness import Noise
from diascope.registry import nested


@objectives.register("asgt")
@dataclass(frozen=True, kw_only=True)
class ASGT(Guided):
    """CE(x, y) + CE(x', y) + lam * KL(p(M_k(x')) || p(x)), x' = attack(x, y) (P4, equation 5).

    The attacked image is masked where its own gradient is low (P4, equation 3). P4 takes k = 0.1
    (0.3 in the MNIST figure), lam = 1 and an attack in L-inf that it does not name. The options
    are those of `Guided`, `Compared` and `Passes`; kl_first and detach speak of x as the clean
    image.

    Costs the attack, the ranking's forward and backward pass to the input, and one forward and
    backward of three times the images: with FGSM 13 units, where a forward pass is 1, a backward
    pass to the input 1, and to the weights 2 (`Adversarial` with FGSM: 5).
    """

    attack: Attack = nested("attack")
    kl_first: Literal["clean", "changed"] = "changed"

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
        noise, branches = Noise.of(x, generator, ids), [x]
        with self._net(model, x) as net:
            branches.append(self.attack(net, x, y, generator=generator, ids=ids))
            if self.lam > 0:
                branches.append(self._masked(net, branches[1], y, noise))
        clean, attacked, *changed = self._logits(model, *branches)
        loss = self._cross_entropy(clean, y, class_weight)
        loss = loss + self._cross_entropy(attacked, y, class_weight)
        if changed:
            loss = loss + self.lam * self._divergence(clean, changed[0], y)
        return loss
