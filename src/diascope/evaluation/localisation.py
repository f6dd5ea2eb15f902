"""Localisation of maps against masks, each beside chance and beside a map that only knows
that lesions sit in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diascope.evaluation.measures import members
from diascope.evaluation.measures.localisation import Localisation

CENTRE_SIGMA = 0.25
_PIXELS = 1 << 20  # pixels measured at once


def centre_prior(
    height: int, width: int, sigma: float = CENTRE_SIGMA, device: torch.device | str = "cpu"
) -> Tensor:
    """Return a centred Gaussian (H, W), 1 at its peak, as a map that has not seen the image.

    `sigma` is the standard deviation as a fraction of each side: by default a quarter of the
    height and a quarter of the width. It matters to the mass inside alone; the pointing game and
    the average precision see only the order of the pixels, the same for every sigma.
    """
    if not sigma > 0:
        raise ValueError(f"sigma is {sigma}, and must be positive")
    rows, columns = (
        torch.exp(-0.5 * ((torch.arange(n, device=device) - (n - 1) / 2) / (sigma * n)) ** 2)
        for n in (height, width)
    )
    return rows[:, None] * columns[None, :] / (rows.max() * columns.max())


def localisation_table(
    heat: Tensor,
    masks: Tensor,
    *,
    measures: Mapping[str, Localisation] | None = None,
    sigma: float = CENTRE_SIGMA,
) -> dict[str, npt.NDArray[np.float32]]:
    """Return columns (B,) for a table with a row an image: heat (B, H, W), masks (B, H, W) bool.

    For each measure (default: every one of the family) the columns `<name>`, `<name>_chance`
    and `<name>_centre`: the map's value, the value of a map that is the same everywhere, and that
    of `centre_prior`. NaN where undefined, such as for an image without a mask.
    """
    chosen = members("localisation") if measures is None else dict(measures)
    suffixes = ("", "_chance", "_centre")
    parts: dict[str, list[Tensor]] = {name + s: [] for name in chosen for s in suffixes}
    count, height, width = heat.shape
    prior = centre_prior(height, width, sigma, heat.device)
    rows = max(1, _PIXELS // (height * width))
    for start in range(0, max(1, count), rows):  # once for no images, to have the columns
        maps, inside = heat[start : start + rows], masks[start : start + rows].to(heat.device)
        for name, measure in chosen.items():
            parts[name].append(measure(maps, inside))
            parts[name + "_chance"].append(measure.chance(inside))
            parts[name + "_centre"].append(measure(prior.expand(maps.shape), inside))
    return {
        name: torch.cat(column).cpu().numpy().astype(np.float32, copy=False)
        for name, column in parts.items()
    }
