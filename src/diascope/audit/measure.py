"""The maps of the shown explanation, and the random numbers of a purpose."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diascope.audit.settings import AuditSettings
from diascope.data import Pixels
from diascope.explain import rectify
from diascope.randomness import derive


def maps(
    model: nn.Module,
    pixels: Pixels,
    rows: np.ndarray[Any, np.dtype[np.int64]],
    settings: AuditSettings,
    device: torch.device,
) -> Tensor:
    """Return the rectified maps (B, H, W) of the true class of some images."""
    explainer = settings.build_explainer()
    attribution = explainer(
        model,
        pixels.x(rows, device),
        pixels.y(rows, device),
        generator=seeded(settings, "explain"),
        ids=pixels.ids(rows).to(device),
    )
    return rectify(attribution, explainer.rectification)


def seeded(settings: AuditSettings, purpose: str) -> torch.Generator:
    """Return a generator that depends on the seed and the purpose alone."""
    return torch.Generator().manual_seed(derive(settings.seed, purpose) & (2**62 - 1))
