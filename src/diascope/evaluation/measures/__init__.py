"""Measures of maps: one file a family, one registry by name.

A measure is a frozen dataclass, called as a plain function, that gives one number an image. It
says which way is better (`higher_is_better`), between which `limits` its values lie, and to
which `family` it belongs, which decides what it is called with. An image for which it is not
defined gets NaN.
"""

from __future__ import annotations

from typing import Any, ClassVar, Protocol

from diascope.registry import Registry


class Measure(Protocol):
    """What every measure declares, whatever its family."""

    family: ClassVar[str]
    higher_is_better: ClassVar[bool]
    limits: ClassVar[tuple[float, float]]


MEASURES = Registry("measure", __name__)


def members(family: str) -> dict[str, Any]:
    """Return the measures of a family with their default settings, by name."""
    return {name: MEASURES[name]() for name in MEASURES if MEASURES[name].family == family}


__all__ = ["MEASURES", "Measure", "members"]
