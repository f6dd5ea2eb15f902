"""How what a model makes of covered images is computed."""

from __future__ import annotations

from torch import Tensor, nn

from diascope.explain.covered.images import Covered, Windows
from diascope.explain.covered.maps import CoveredMaps
from diascope.explain.covered.nearby import nearby
from diascope.models.stem import stem_apart


def covered_of(
    net: nn.Module, x: Tensor, fill: Tensor, windows: tuple[Windows, Windows], passes: int
) -> Covered:
    """Return what covers the images: as `CoveredMaps` where the model's stem allows it, and as
    `CoveredNearby` where the modules behind it do, too.

    passes: the work to come, in passes of one image, over all images.
    """
    stem = stem_apart(net, x, passes)
    if stem is None:
        return Covered(net, x, fill, windows)
    found = nearby(stem, x, fill, windows)
    return CoveredMaps(stem, x, fill, windows) if found is None else found
