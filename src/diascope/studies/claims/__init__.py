"""Claims: one file a kind, a frozen dataclass that turns quantities into contrasts.

A claim holds where every one of its contrasts is above zero.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from diascope.registry import Registry

Floats = npt.NDArray[np.float64]


class Claim(Protocol):
    """A statement about Q quantities, its settings in its fields."""

    @property
    def quantities(self) -> tuple[object, ...]:
        """The Q quantities as the study file writes them, see `diascope.studies.quantities`."""
        ...

    def contrasts(self, values: Floats) -> Floats:
        """Return the M contrasts of values (Q, ...), (M, ...): the claim is that all are > 0."""
        ...

    def effect(self, values: Floats) -> Floats:
        """Return the one number that is shown, of values (Q, ...), (...), such as a - b."""
        ...

    def describe(self) -> str:
        """Return the statement in symbols, such as "a > b"."""
        ...


CLAIMS = Registry("claim", __name__)
