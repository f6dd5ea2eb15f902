"""Everyday corruptions, one file a member: (x, severity, ids) -> x as a worse day makes it.

x (B, C, H, W) in [0, 1], of 1 or 3 channels, comes back in the same shape and range. `severity`
is 1 to 5; what the five mean stands in `levels`, in the unit of each member's first line. Lengths
are shares of the image's side, so that a severity is the same accident at any size (but for `jpeg`
and `resolution`, which count in pixels of the image). What is drawn
by lot (a direction, a sign, the noise) depends on (`seed`, id) alone and stays the same from one
severity to the next, so that an image only moves further away.
"""

from __future__ import annotations

from diascope.evaluation.corruptions.base import SEVERITIES, Corruption, Levels
from diascope.registry import Registry

CORRUPTIONS = Registry("corruption", __name__)


def corruptions() -> dict[str, Corruption]:
    """Return every corruption with its default settings, by name."""
    return {name: CORRUPTIONS[name]() for name in CORRUPTIONS}


__all__ = ["CORRUPTIONS", "SEVERITIES", "Corruption", "Levels", "corruptions"]
