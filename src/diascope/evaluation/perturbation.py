"""Pictures of perturbations, and a table of what they are: size, contrast, place."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diascope.attacks.threat import NORMS, Threat
from diascope.evaluation.measures import members
from diascope.evaluation.measures.perturbation import EnergyInside, PictureContrast, scaled


def perturbation_pictures(
    delta: Tensor, scaling: Literal["minmax", "symmetric"] = "minmax"
) -> npt.NDArray[np.uint8]:
    """Return each perturbation as a picture for the eye: (B, C, H, W) -> (B, H, W, 3) uint8.

    delta: adversarial images less originals, C = 1 (shown as grey) or 3. scaling: "minmax"
    stretches each image's changes to [0, 255], as Wasserman 2022 (section 5.1); "symmetric" keeps
    no change at mid-grey (128). Every picture is scaled by itself, so that two of them say
    nothing of which perturbation is larger; an image without a change is mid-grey.
    """
    if delta.ndim != 4 or delta.shape[1] not in (1, 3):
        raise ValueError(f"delta {tuple(delta.shape)}: expected (B, 1 or 3, H, W)")
    if not len(delta):
        return np.zeros((0, *delta.shape[2:], 3), np.uint8)
    levels = (scaled(delta.detach().double(), scaling) * 255).round().to(torch.uint8)
    return levels.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def energy_inside(delta: Tensor, mask: Tensor) -> Tensor:
    """Return the share of each perturbation's squared L2 norm inside the mask, (B,) in [0, 1].

    delta (B, C, H, W), mask (B, H, W) bool; see `EnergyInside`, whose `chance(mask)` is the mask's
    share of the area. NaN where the mask or the perturbation is empty.
    """
    return EnergyInside()(delta, mask)


def contrast(delta: Tensor) -> Tensor:
    """Return the RMS contrast of each perturbation's picture, (B,) in [0, 0.5].

    delta (B, C, H, W); see `PictureContrast`. NaN for an image without a change.
    """
    return PictureContrast()(delta)


def perturbation_table(
    delta: Tensor, masks: Tensor | None = None
) -> dict[str, npt.NDArray[np.float32]]:
    """Return columns (B,) for a table with a row an image: delta (B, C, H, W), masks (B, H, W).

    The norms `linf`, `l2` and `l1` in pixel units, and every measure of the family; with masks
    also `energy_inside_chance`, without them no energy.
    """
    table: dict[str, Tensor] = {}
    for norm in NORMS:
        table[norm] = Threat(norm, 0.0).size(delta.detach().double())
    for name, measure in members("perturbation").items():
        if masks is not None or not isinstance(measure, EnergyInside):
            table[name] = measure(delta, masks)
    if masks is not None:
        table["energy_inside_chance"] = EnergyInside().chance(masks)
    return {name: column.cpu().numpy().astype(np.float32) for name, column in table.items()}
