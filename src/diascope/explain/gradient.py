"""The gradient of a class score to the pixels."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diascope.explain.base import Rectification, checked_targets, explainers
from diascope.explain.chunks import rows_within
from diascope.models.frozen import Arithmetic, frozen
from diascope.models.heads import target_score

Score = Literal["logit", "log_softmax", "probability", "loss"]


def input_gradient(
    net: Callable[[Tensor], Tensor], x: Tensor, targets: Tensor, of: Score = "logit"
) -> Tensor:
    """Return the gradient of each image's score to its pixels, (B, C, H, W), of x's kind.

    The scores are summed over the batch, so that no gradient depends on the others. It is zero
    where the score does not depend on the image. One forward and one backward pass, to the input
    alone.
    """
    if torch.is_inference_mode_enabled():
        raise RuntimeError("explanations need gradients: call outside torch.inference_mode()")
    with torch.enable_grad():
        x = x.detach().requires_grad_(True)
        score = target_score(net(x), targets, of).sum()
        if not score.requires_grad:
            return torch.zeros_like(x)
        (gradient,) = torch.autograd.grad(score, x, allow_unused=True)
    return torch.zeros_like(x) if gradient is None else gradient


@explainers.register("gradient")
@dataclass(frozen=True, kw_only=True)
class Gradient:
    """The input gradient of the target's score (Simonyan et al. 2014, section 3).

    of: the score that is differentiated: "logit" (the paper's), "log_softmax", "probability" or
    "loss" (of a multi-label head take the logit: the others read the outputs as one softmax).
    times_input: multiply by the image. precision: of the pass. memory: the bytes that activations
    may take. The model is explained frozen, in eval mode, and given back as it was; an image's map
    does not depend on the others. One forward and one backward pass.
    """

    rectification: ClassVar[Rectification] = "absolute"

    of: Score = "logit"
    times_input: bool = False
    precision: Arithmetic = "auto"
    memory: int = 2**30

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the gradient of images (B, C, H, W) in [0, 1], of the same shape.

        Raises ValueError for classes that the model does not have.
        """
        if not len(x):
            return torch.empty_like(x)
        with frozen(model, x[:1], precision=self.precision, exact_pooling=True) as net:
            targets = checked_targets(net, x, target)
            rows = rows_within(net, x, self.memory) if len(x) > 1 else 1
            total = torch.empty_like(x)
            for start in range(0, len(x), rows):
                part = slice(start, start + rows)
                total[part] = input_gradient(net, x[part], targets[part], self.of)
        return total.mul_(x.detach()) if self.times_input else total
