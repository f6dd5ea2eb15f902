"""What logits mean: one meaning for binary, multi-class and multi-label heads.

A head is told from the shapes: logits (B, 1) with labels (B,) are one sigmoid; logits (B, K)
with integer labels (B,) a softmax over K classes; logits (B, K) with float labels (B, K)
are K sigmoids (multi-label).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def is_multilabel(logits: Tensor, y: Tensor) -> bool:
    """Tell whether labels of shape (B, K) ask for K independent sigmoids."""
    return y.ndim == 2 and logits.shape == y.shape


def cross_entropy(
    logits: Tensor, y: Tensor, *, weight: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """Return the cross-entropy of each image, in nats: logits (B, K), labels -> (B,).

    `weight` (K,) multiplies the loss of each class. Multi-label losses are summed over labels,
    so that an image's loss does not depend on how many other labels there are.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if is_multilabel(logits, y):
        target = y.to(logits.dtype) * (1 - label_smoothing) + 0.5 * label_smoothing
        losses = F.binary_cross_entropy_with_logits(logits, target, weight, reduction="none")
        return losses.sum(1)
    if logits.shape[1] == 1:
        target = y.to(logits.dtype) * (1 - label_smoothing) + 0.5 * label_smoothing
        losses = F.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
        return losses if weight is None else losses * weight[y.long()]
    return F.cross_entropy(
        logits, y.long(), weight=weight, reduction="none", label_smoothing=label_smoothing
    )


def probabilities(logits: Tensor, *, multilabel: bool = False) -> Tensor:
    """Return probabilities (B, K), in [0, 1]; a single logit becomes two columns, (1 - p, p)."""
    logits = logits.float()
    if multilabel:
        return logits.sigmoid()
    if logits.shape[1] == 1:
        p = logits.sigmoid()
        return torch.cat([1 - p, p], 1)
    return logits.softmax(1)


def predictions(logits: Tensor, *, multilabel: bool = False) -> Tensor:
    """Return the predicted class (B,), or for multi-label heads the predicted labels (B, K)."""
    if multilabel:
        return (logits > 0).long()
    if logits.shape[1] == 1:
        return (logits[:, 0] > 0).long()
    return logits.argmax(1)


def is_correct(logits: Tensor, y: Tensor) -> Tensor:
    """Return whether each image is classified correctly (B,); multi-label: every label right.

    Logits that are not finite are never correct.
    """
    finite = logits.isfinite().all(1)
    if is_multilabel(logits, y):
        return (predictions(logits, multilabel=True) == y.long()).all(1) & finite
    return (predictions(logits) == y.long()) & finite


def target_score(logits: Tensor, target: Tensor, of: str = "logit") -> Tensor:
    """Return the scalar of each image that an explanation differentiates: (B, K), (B,) -> (B,).

    `of`: "logit" the target's logit (a single logit counts against class 0); "log_softmax" its
    log-probability; "probability" its probability; "loss" the cross-entropy of the target.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if logits.shape[1] == 1:
        logits = torch.cat([-logits / 2, logits / 2], 1)  # the difference is the single logit
    if of == "log_softmax":
        logits = logits.log_softmax(1)
    elif of == "probability":
        logits = logits.softmax(1)
    elif of == "loss":
        logits = -logits.log_softmax(1)
    elif of != "logit":
        raise ValueError(f"of='{of}': one of logit, log_softmax, probability, loss")
    return logits.gather(1, target.long()[:, None])[:, 0]
