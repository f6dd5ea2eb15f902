"""Colours of maps: each reads in grey print and for colour-blind readers.

The luminance of every colour map goes one way from end to end, so that a grey print, or an eye
that tells few hues, still sees which value is the larger. "blue" is one hue on white paper, as
the maps of P1; "magma", "viridis" and "cividis" (Nuñez et al. 2018) are perceptually even, dark
to light; "signed" is for raw signed maps in [-1, 1]: dark blue against the class, mid-grey for
nothing, light yellow for it.
"""

from __future__ import annotations

from functools import cache

import matplotlib
import numpy as np
import torch
from matplotlib.colors import Colormap, LinearSegmentedColormap
from numpy.typing import NDArray
from torch import Tensor

from diascope.errors import nearest

MAPS = {
    "magma": "magma",
    "viridis": "viridis",
    "cividis": "cividis",
    "blue": "Blues",
    "grey": "gray",
    "signed": "signed",
}
DEFAULT = "viridis"  # of those that suit overlays, it stands out best over skin
SIGNED = "signed"
LEVELS = 256
_SIGNED = ("#07184a", "#2b57b5", "#8a8a8a", "#e0a01f", "#fff7c4")


@cache
def table(name: str, levels: int = LEVELS) -> NDArray[np.float64]:
    """Return the colours of a map from its smallest to its largest value, (levels, 3) in [0, 1].

    Raises `ValueError` for a name that is not among `MAPS`.
    """
    if name not in MAPS:
        raise ValueError(f"colour map '{name}': {nearest(name, MAPS)}")
    if name == SIGNED:
        colours: Colormap = LinearSegmentedColormap.from_list(name, _SIGNED)
    else:
        colours = matplotlib.colormaps[MAPS[name]]
    return np.asarray(colours(np.linspace(0, 1, levels)), dtype=np.float64)[:, :3]


def colourise(heat: Tensor, name: str = DEFAULT) -> Tensor:
    """Return maps (B, H, W) as pictures (B, 3, H, W) uint8, on their own device.

    heat: in [0, 1]; for "signed" in [-1, 1]. What lies outside takes the end's colour, and what
    is not a number that of no evidence.
    """
    if heat.ndim != 3:
        raise ValueError(f"heat {tuple(heat.shape)}: expected (B, H, W)")
    levels = torch.from_numpy(np.rint(table(name) * 255).astype(np.uint8)).to(heat.device)
    values = heat.detach().float().nan_to_num(nan=0.0)
    values = (values + 1) / 2 if name == SIGNED else values
    steps = (values.clamp(0, 1) * (LEVELS - 1)).round().long()
    return levels[steps].permute(0, 3, 1, 2).contiguous()
