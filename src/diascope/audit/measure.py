"""One model on every image: predictions, minimal epsilons and localisation, a row an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from diascope.attacks import robustness_curve
from diascope.audit.settings import AuditSettings
from diascope.data import Pixels
from diascope.evaluation import localisation_table, predict
from diascope.explain import rectify
from diascope.randomness import derive

Report = Callable[[str, int], None]  # (stage, images settled)


def measure(
    model: nn.Module, pixels: Pixels, settings: AuditSettings, device: torch.device, report: Report
) -> pd.DataFrame:
    """Return the predictions table with `minimal_epsilon` and the localisation columns added.

    Maps explain the true class. Localisation measures the rectified map before it is rendered;
    it is NaN for an image without a mask.
    """
    table = predict(model, pixels, batch_size=settings.batch_size, device=device)
    table["group"] = pixels.dataset.groups  # an image without a group is its own
    table["minimal_epsilon"] = minimal_epsilons(model, pixels, settings, device, report)
    for name, column in localisation(model, pixels, settings, device, report).items():
        table[name] = column
    return table


def minimal_epsilons(
    model: nn.Module, pixels: Pixels, settings: AuditSettings, device: torch.device, report: Report
) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the smallest epsilon of the grid that breaks each image, (N,); inf for none."""
    attack, parts = settings.build_attack(), []
    grid = settings.grid(pixels.images.shape[1])
    for rows in _chunks(len(pixels.dataset), 4 * settings.batch_size):
        curve = robustness_curve(
            model,
            pixels.x(rows, device),
            pixels.y(rows, device),
            attack=attack,
            epsilons=grid,
            batch_size=settings.batch_size,
            generator=seeded(settings, "attack"),
            ids=pixels.ids(rows).to(device),
            progress=lambda done: report("attack", done),
        )
        parts.append(curve.minimal_epsilon.numpy())
    return np.concatenate(parts)


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
