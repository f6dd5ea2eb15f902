"""From raw signed attributions to pictures, and nothing else."""

from __future__ import annotations

import torch
from torch import Tensor

from diascope.explain.base import Rectification


def rectify(attribution: Tensor, rectification: Rectification = "absolute") -> Tensor:
    """Return the non-negative map (B, H, W) of a raw attribution (B, C or 1, H, W).

    "absolute": the sum of |.| over channels (P1, section 3). "positive": the positive part of
    the sum over channels (Grad-CAM: positive evidence only, P1 B.4).
    """
    if attribution.ndim != 4:
        raise ValueError(f"an attribution is (B, C, H, W), not {tuple(attribution.shape)}")
    if rectification == "positive":
        return attribution.float().sum(1).clamp_min(0)
    return attribution.float().abs().sum(1)


def render(
    attribution: Tensor, rectification: Rectification = "absolute", percentile: float = 99.0
) -> Tensor:
    """Return heat maps (B, H, W) in [0, 1] of raw attributions (B, C or 1, H, W).

    Rectified, capped at each image's own `percentile` (P1: the 99th) and divided by it. A map
    without any evidence is all zero; values that are not finite count as zero.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile={percentile}: must lie in (0, 100]")
    heat = rectify(attribution, rectification).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    flat = heat.flatten(1)
    cap = torch.stack([torch.quantile(each, percentile / 100) for each in flat])  # (B,)
    cap = torch.where(cap > 0, cap, flat.amax(1))  # fewer than 1% of the pixels hold evidence
    return torch.minimum(heat / cap.clamp_min(1e-30)[:, None, None], heat.new_ones(()))
