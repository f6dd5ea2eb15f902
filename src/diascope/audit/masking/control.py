"""A model that nobody defended, made on the spot from the audited images."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diascope.attacks.threat import Norm

SIDE = 8
RIDGE = 1e-2


class Control(nn.Module):
    """A linear classifier of pixels scaled down to 8 x 8: logits (B, K).

    weight (D, K) and bias (K,) are those of a ridge regression of the one-hot labels on the pixels,
    in closed form. What breaks it is known exactly: see `least`.
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)

    @classmethod
    def fit(cls, x: Tensor, y: Tensor) -> Control:
        """Return the classifier of images (N, C, H, W) with labels (N,)."""
        pixels = small(x).double()
        mean = pixels.mean(0)
        flat = pixels - mean
        target = F.one_hot(y.long(), int(y.max()) + 1).double()
        gram = flat @ flat.T
        ridge = RIDGE * gram.diagonal().mean() * torch.eye(len(x), dtype=gram.dtype).to(gram)
        weight = flat.T @ torch.linalg.solve(gram + ridge, target - target.mean(0))
        bias = target.mean(0) - mean @ weight
        return cls(weight.float(), bias.float())

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits."""
        logits: Tensor = small(x) @ self.weight + self.bias
        return logits

    def least(self, x: Tensor, y: Tensor, norm: Norm) -> Tensor:
        """Return the smallest eps that breaks each image (N,), leaving out the pixels' bounds.

        The margin to another class over the dual norm of the difference of the two classes'
        weights in pixel space; the least over the classes.
        """
        one = x[:1].detach().clone().requires_grad_(True)
        rows = [
            torch.autograd.grad(logit, one, retain_graph=True)[0].flatten()
            for logit in self(one)[0]
        ]
        slopes = torch.stack(rows).double()  # (K, D)
        logits = self(x).detach().double()
        apart = slopes[None] - slopes[y.long()][:, None]  # (N, K, D)
        order = {"linf": 1.0, "l2": 2.0, "l1": torch.inf}[norm]
        length = torch.linalg.vector_norm(apart, order, dim=2).clamp_min(1e-30)
        gap = logits.gather(1, y.long()[:, None]) - logits
        ratio: Tensor = gap / length
        return ratio.scatter(1, y.long()[:, None], torch.inf).amin(1)


def small(x: Tensor) -> Tensor:
    """Return the pixels (N, D) of images (N, C, H, W) at 8 x 8, or as they are if smaller."""
    side = min(SIDE, x.shape[-1], x.shape[-2])
    return F.adaptive_avg_pool2d(x, side).flatten(1)
