"""From raw signed attributions to maps that can be shown, and nothing else."""

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
    heat = _finite(rectify(attribution, rectification))
    return (heat / caps(heat, percentile)[:, None, None]).clamp_max(1)


def render_signed(attribution: Tensor, percentile: float = 99.0) -> Tensor:
    """Return signed maps (B, H, W) in [-1, 1] of raw attributions (B, C or 1, H, W).

    The sum over channels, its size capped at each image's own `percentile` and divided by it:
    above zero speaks for the target, below zero against it, and zero stays zero.
    """
    if attribution.ndim != 4:
        raise ValueError(f"an attribution is (B, C, H, W), not {tuple(attribution.shape)}")
    signed = _finite(attribution.float().sum(1))
    return (signed / caps(signed.abs(), percentile)[:, None, None]).clamp(-1, 1)


def caps(heat: Tensor, percentile: float = 99.0) -> Tensor:
    """Return the value (B,) at which each map (B, H, W), not negative, is capped.

    The percentile of its pixels; the maximum where fewer hold evidence; never zero.
    """
    if not 0 < percentile <= 100:
        raise ValueError(f"percentile={percentile}: must lie in (0, 100]")
    flat = heat.flatten(1)
    place = percentile / 100 * (flat.shape[1] - 1)
    top = flat.topk(flat.shape[1] - int(place), 1).values  # a third of the time of quantile
    cap = torch.lerp(top[:, -1], top[:, -2:][:, 0], place - int(place))
    return torch.where(cap > 0, cap, flat.amax(1)).clamp_min(1e-30)


def _finite(heat: Tensor) -> Tensor:
    return heat.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
