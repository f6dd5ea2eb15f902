"""The gradient of a class score to the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from diascope.explain.base import Rectification, as_targets, explainers
from diascope.models.heads import target_score
from diascope.models.modes import evaluating


@explainers.register("gradient")
@dataclass(frozen=True, kw_only=True)
class Gradient:
    """The input gradient of the target's score (Simonyan et al. 2014, section 3).

    of: the score that is differentiated: "logit" (the paper's), "log_softmax", "probability" or
    "loss". times_input: multiply by the image. The model is explained in eval mode; the scores
    are summed over the batch, so that an image's map does not depend on the others. One forward
    and one backward pass.
    """

    rectification: ClassVar[Rectification] = "absolute"

    of: Literal["logit", "log_softmax", "probability", "loss"] = "logit"
    times_input: bool = False

    def __call__(
        self,
        model: nn.Module,
        x: Tensor,
        target: Tensor | int,
        *,
        generator: torch.Generator | None = None,
        ids: Tensor | None = None,
    ) -> Tensor:
        """Return the gradient of images (B, C, H, W) in [0, 1], of the same shape."""
        with evaluating(model) as inner, torch.enable_grad():
            x = x.detach().requires_grad_(True)
            score = target_score(inner(x), as_targets(target, x), self.of).sum()
            (gradient,) = torch.autograd.grad(score, x)
        return gradient * x.detach() if self.times_input else gradient
