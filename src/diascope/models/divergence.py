"""How far two predictions are apart: one meaning for every head of `diascope.models.heads`."""

from __future__ import annotations

import torch
from torch import Tensor


def log_probabilities(logits: Tensor, *, multilabel: bool = False) -> Tensor:
    """Return the log-probabilities of each question's answers, (B, K) -> (B, questions, answers).

    K classes are one question of K answers; a single logit one of two; K labels K of two each.
    At least in float32.
    """
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if multilabel or logits.shape[1] == 1:
        return torch.stack([-logits / 2, logits / 2], -1).log_softmax(-1)
    return logits[:, None].log_softmax(-1)


def kl_divergence(first: Tensor, second: Tensor, *, multilabel: bool = False) -> Tensor:
    """Return KL(p || q) of each image in nats, p and q told by logits (B, K) each; (B,).

    Kullback and Leibler 1951. Those of several labels are summed, as their cross-entropies are.
    Finite for finite logits, also where a probability is 0 in floating point, and differentiable
    in both arguments.
    """
    log_p = log_probabilities(first, multilabel=multilabel)
    log_q = log_probabilities(second, multilabel=multilabel)
    return (log_p.exp() * (log_p - log_q)).sum((1, 2))
