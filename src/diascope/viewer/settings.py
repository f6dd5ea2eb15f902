"""What the live page offers, and how much of this machine it may take."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, field_validator

from diascope.settings import Settings

MEGABYTE = 1 << 20


class ViewSettings(Settings):
    """The settings of the live page.

    norm: the ball that is offered first; epsilons: its grid in pixel units, None for one that
    suits the image size. steps: of the attack. explainer: the method shown first. classes, size:
    of models whose file does not say. max_upload: bytes of an image file. memory: bytes that
    prepared and attacked images may take. timeout: seconds that one piece of work may take.
    waiting: pieces of work that may wait; uploads: files taken in at the same time.
    """

    norm: Literal["l2", "linf"] = "l2"
    epsilons: tuple[float, ...] | None = None
    steps: int = Field(default=20, ge=1, le=200)
    explainer: str = "gradient"
    classes: tuple[str, ...] | None = None
    size: int | None = Field(default=None, ge=1)
    max_upload: int = Field(default=64 * MEGABYTE, ge=1024, le=512 * MEGABYTE)
    memory: int = Field(default=512 * MEGABYTE, ge=MEGABYTE)
    timeout: float = Field(default=600.0, gt=0)
    waiting: int = Field(default=16, ge=1)
    uploads: int = Field(default=2, ge=1)
    seed: int = 0

    @field_validator("epsilons")
    @classmethod
    def _ascending(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is None:
            return None
        found = tuple(sorted({e for e in value if e != 0}))
        if not found or not all(e > 0 and math.isfinite(e) for e in found) or len(found) > 12:
            raise ValueError("give 1 to 12 finite epsilons above 0, such as 0.25,0.5,1")
        return found
