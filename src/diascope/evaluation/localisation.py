"""Localisation of maps against masks, each beside chance and beside a map that only knows
that lesions sit in the middle.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from diascope.evaluation.measures import members
from diascope.evaluation.measures.localisation import Localisation
from diascope.evaluation.measures.maps import Maps, chunks

CENTRE_SIGMA = 0.25


def centre_prior(
    height: int, width: int, sigma: float = CENTRE_SIGMA, device: torch.device | str = "cpu"
) -> Tensor:
    """Return a centred Gaussian (H, W), 1 at its peak, as a map that has not seen the image.

    `sigma` is the standard deviation as a fraction of each side: by default a quarter of the
    height and a quarter of the width. It matters to the mass inside and to Otsu's threshold alone;
    the other measures see only the order of the pixels, the same for every sigma.
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
    _, height, width = heat.shape
    prior = centre_prior(height, width, sigma, heat.device)
    same_images(heat, masks)
    parts = [
        localised(Maps(heat[rows], masks[rows]), chosen, prior) for rows in chunks(heat)
    ]  # once for no images, to have the columns
    return joined(parts)


def localised(maps: Maps, measures: Mapping[str, Localisation], prior: Tensor) -> dict[str, Tensor]:
    """Return the columns (B,) of `localisation_table` for maps with masks, and a prior (H, W)."""
    assert maps.mask is not None
    centred = Maps(prior.expand(maps.heat.shape), maps.mask)
    columns: dict[str, Tensor] = {}
    for name, measure in measures.items():
        columns[name] = measure.of(maps)
        columns[name + "_chance"] = measure.chance(maps.mask)
        columns[name + "_centre"] = measure.of(centred)
    return columns


def same_images(heat: Tensor, *others: Tensor) -> None:
    """Raise `ValueError` where tensors hold another number of images than the maps."""
    for other in others:
        if len(other) != len(heat):
            raise ValueError(f"{len(heat)} maps, but {len(other)} images beside them")


def joined(parts: Sequence[Mapping[str, Tensor]]) -> dict[str, npt.NDArray[np.float32]]:
    """Return columns of some images at a time as whole ones."""
    return {
        name: torch.cat([part[name] for part in parts]).float().cpu().numpy() for name in parts[0]
    }
