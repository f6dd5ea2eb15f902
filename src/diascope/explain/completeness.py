"""Whether the parts of an explanation sum to the score that they explain."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diascope.errors import UserError
from diascope.explain.base import Complete, Explainer, explainers, seeds


@dataclass(frozen=True)
class Completeness:
    """total: the sum of the parts; due: what it must be; gap: |total - due| / |due|, (B,) each.

    The gap is at least 0, lower is better, and NaN where nothing is due.
    """

    total: Tensor
    due: Tensor
    gap: Tensor


def completeness(
    explainer: Explainer | Complete,
    model: nn.Module,
    x: Tensor,
    target: Tensor | int,
    *,
    generator: torch.Generator | None = None,
    ids: Tensor | None = None,
    raw: Tensor | None = None,
) -> Completeness:
    """Return how far the parts of an explanation are from the score that they are due.

    x: images (B, C, H, W) in [0, 1]; target (B,) or one for all. The parts are in the precision of
    the explainer; what is due is asked of the model itself in float32 (Sundararajan et al. 2017,
    proposition 1; for FullGrad Srinivas and Fleuret 2019, proposition 1). Both are of the same
    random draws. raw: the attributions, made by `explain_all` with a generator in the same state,
    where they are at hand; they are not made again where they are the parts themselves. Raises
    `UserError` for an explainer that promises no sum. Costs some forward passes, and without `raw`
    one explanation.
    """
    if not isinstance(explainer, Complete):
        known = ", ".join(name for name in explainers if issubclass(explainers[name], Complete))
        raise UserError(f"{type(explainer).__name__} promises no sum; those that do: {known}")
    same = seeds(generator)
    if raw is not None and getattr(explainer, "sums_itself", False):
        total = raw.flatten(1).sum(1)
    else:
        total = explainer.total(model, x, target, generator=same(), ids=ids)
    due = explainer.due(model, x, target, generator=same(), ids=ids)
    gap = (total - due).abs() / due.abs()
    return Completeness(total, due, gap.where(due != 0, torch.nan))
