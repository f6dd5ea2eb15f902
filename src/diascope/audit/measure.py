"""The maps of the shown explanation, and where they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from diascope.audit.settings import AuditSettings
from diascope.data import Pixels
from diascope.evaluation import localisation_table
from diascope.explain import rectify
from diascope.randomness import derive

Report = Callable[[str, int], None]  # (stage, images settled)


def localisation(
    model: nn.Module, pixels: Pixels, settings: AuditSettings, device: torch.device, report: Report
) -> dict[str, Any]:
    """Return the localisation columns of the maps of the true class; none without masks."""
    if pixels.masks is None:
        return {}
    parts: list[dict[str, Any]] = []
    for rows in _chunks(len(pixels.dataset), settings.batch_size):
        heat = maps(model, pixels, rows, settings, device)
        parts.append(localisation_table(heat, pixels.m(rows, device)))
        report("explain", len(rows))
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


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


def _chunks(count: int, size: int) -> Iterator[np.ndarray[Any, np.dtype[np.int64]]]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))
