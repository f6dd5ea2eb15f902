"""Saliency-guided training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diascope.attacks.base import Attack
from diascope.objectives.base import objectives
from diascope.objectives.guided import Guided
from diascope.randomness import Noise


@objectives.register("saliency-guided")
@dataclass(frozen=True, kw_only=True)
class SaliencyGuided(Guided):
    """CE(x, y) + lam * KL(p(M_k(x)) || p(x)) (P4, algorithm 1; METHODS: SGT).

    Features of low gradient are masked, and the prediction is to stay. Ismail et al. 2021 have
    the divergence the other way round, kl_first="clean". P4 takes k = 0.3 and 0.5 for MNIST, 0.1
    and 0.2 for CIFAR-10. The options are those of `Guided`, `Compared` and `Passes`.

    Costs one forward and one backward pass to the input for the ranking, and one forward and
    backward of twice the images: 8 units, where a forward pass is 1, a backward pass to the input
    1, and to the weights 2 (standard training: 3).
    """

    attack: ClassVar[Attack | None] = None
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
        if self.lam == 0:
            return self._cross_entropy(model(x), y, class_weight)
        noise = Noise.of(x, generator, ids)
        with self._net(model, x) as net:
            x_masked = self._masked(net, x, y, noise)
        clean, changed = self._logits(model, x, x_masked)
        loss = self._cross_entropy(clean, y, class_weight)
        return loss + self.lam * self._divergence(clean, changed, y)
