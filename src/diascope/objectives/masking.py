"""M_k: the lowest-ranked share of an image's features, filled with something else.

One batched piece for every saliency-guided scheme: a k-th value an image, and no loop over images.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from diascope.randomness import Noise

Ranking = Literal["signed", "absolute", "random"]
Channels = Literal["each", "mean", "mean_abs"]
Fill = Literal["uniform"] | float


def saliency(gradient: Tensor, ranking: Ranking, channels: Channels) -> Tensor:
    """Return what features are ranked by: gradients (B, C, H, W) -> (B, C or 1, H, W).

    Not for "random", which asks no gradient.
    """
    if channels == "mean_abs":
        return gradient.abs().mean(1, keepdim=True)
    if channels == "mean":
        gradient = gradient.mean(1, keepdim=True)
    return gradient.abs() if ranking == "absolute" else gradient


def count_of(k: float, features: int) -> int:
    """Return how many of the features are masked, round(k * features)."""
    return round(k * features)


def lowest(score: Tensor, k: float) -> Tensor:
    """Return where the share `k` of lowest scores lies, (B, C, H, W) -> bool of the same shape.

    Exactly `count_of(k, C * H * W)` features of each image; of equal scores the first in the
    order of (C, H, W). Linear in the number of features.
    """
    flat = score.flatten(1)  # (B, n)
    flat = flat if flat.dtype == torch.float64 else flat.float()
    count = count_of(k, flat.shape[1])
    if count in (0, flat.shape[1]):
        return torch.full_like(score, count > 0, dtype=torch.bool)
    cut = _kth_lowest(flat, count)
    below, level = flat < cut, flat == cut
    room = count - below.sum(1, keepdim=True)
    mask = below | (level & (level.cumsum(1, dtype=torch.int32) <= room))
    return mask.view(score.shape)


def masked(x: Tensor, score: Tensor, k: float, fill: Fill, noise: Noise) -> Tensor:
    """Return images x (B, C, H, W) with their lowest-scored share `k` replaced.

    score: (B, C, H, W) to rank each colour value by itself, (B, 1, H, W) to rank pixels, whose
    colour values go together. fill: "uniform" draws each value anew, between the lowest and the
    highest of the image's own channel; a number is a constant. What is not masked is unchanged.
    """
    mask = lowest(score, k).expand(x.shape)
    if not isinstance(fill, str):
        return torch.where(mask, torch.as_tensor(fill, dtype=x.dtype, device=x.device), x)
    count = count_of(k, score.shape[1:].numel()) * (x.shape[1] // score.shape[1])
    share = noise.uniform((count,)).to(x.dtype)  # (B, count): one number a masked value
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    drawn = torch.zeros(x.shape, dtype=x.dtype, device=x.device).masked_scatter(mask, share)
    values = torch.addcmul(low, high - low, drawn)  # never above high, since drawn < 1
    return torch.where(mask, values, x)


def _kth_lowest(flat: Tensor, count: int) -> Tensor:
    """Return the value of rank `count`, from 1, of each row, (B, n) -> (B, 1)."""
    if flat.device.type != "cpu":
        return flat.kthvalue(count, dim=1, keepdim=True).values
    ranked = np.partition(flat.numpy(), count - 1, axis=1)  # faster than torch's
    return torch.from_numpy(ranked[:, count - 1 : count])
