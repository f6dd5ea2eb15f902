"""What an attack climbs: losses of each image, (B, K) logits and labels -> (B,).

Each works for every head of `diascope.models.heads`; larger is nearer to a misclassification.
A targeted attack climbs `-loss(logits, target)`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from diascope.models.heads import cross_entropy, is_multilabel

Loss = Literal["ce", "margin", "dlr"]


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return the best other logit less the true one (Carlini and Wagner 2017, f6), (B,).

    Above zero the image is misclassified. One logit stands for the two classes (0, z). With
    several labels it is the largest signed logit on the wrong side: above zero one label is wrong.
    """
    if is_multilabel(logits, y):
        return (logits * (1 - 2 * y.to(logits.dtype))).amax(1)
    if logits.shape[1] == 1:
        return logits[:, 0] * (1 - 2 * y.to(logits.dtype))
    true = logits.gather(1, y.long()[:, None])
    others = logits.scatter(1, y.long()[:, None], -torch.inf)
    return others.amax(1) - true[:, 0]


def margin_to(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the target's logit less the true one, (B,); for softmax heads of two classes up."""
    pair = logits.gather(1, torch.stack([y, target], 1).long())
    return pair[:, 1] - pair[:, 0]


def dlr(logits: Tensor, y: Tensor) -> Tensor:
    """Return the difference-of-logits ratio (Croce and Hein 2020, equation 6), (B,).

    (max_{i != y} z_i - z_y) / (z_1st - z_3rd), which neither shifts nor scales with the logits.
    With fewer than three classes it is undefined, and the margin serves.
    """
    if is_multilabel(logits, y) or logits.shape[1] < 3:
        return margin(logits, y)
    top = logits.topk(3, dim=1).values
    return margin(logits, y) / (top[:, 0] - top[:, 2] + 1e-12)


def dlr_to(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Return the targeted ratio (Croce and Hein 2020, equation 7), (B,).

    (z_t - z_y) / (z_1st - (z_3rd + z_4th) / 2); with fewer than four classes `margin_to` serves.
    """
    if logits.shape[1] < 4:
        return margin_to(logits, y, target)
    top = logits.topk(4, dim=1).values
    return margin_to(logits, y, target) / (top[:, 0] - (top[:, 2] + top[:, 3]) / 2 + 1e-12)


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": cross_entropy,
    "margin": margin,
    "dlr": dlr,
}


def loss_of(name: str, *, targeted: bool = False) -> Callable[[Tensor, Tensor], Tensor]:
    """Return the loss called `name` as something to climb; ValueError for an unknown one."""
    if name not in LOSSES:
        raise ValueError(f"loss='{name}': one of {', '.join(LOSSES)}")
    loss = LOSSES[name]
    return (lambda logits, y: -loss(logits, y)) if targeted else loss
