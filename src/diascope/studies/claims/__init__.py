"""Claims: one file a kind, a frozen dataclass that turns quantities into contrasts.

A claim holds where, in one of its alternatives, every contrast is above zero. All contrasts are
affine in the quantities, so that their spread and range follow from those of the quantities.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Protocol

import numpy as np
import numpy.typing as npt

from diascope.registry import Registry
from diascope.studies.quantities import Combined, parse

Floats = npt.NDArray[np.float64]


class Claim(Protocol):
    """A statement about Q quantities, its settings in its fields."""

    @property
    def quantities(self) -> tuple[object, ...]:
        """The Q quantities as the study file writes them, see `diascope.studies.quantities`."""
        ...

    @property
    def alternatives(self) -> int:
        """Into how many equal runs contrasts and parts fall; the claim needs one of them whole."""
        ...

    @property
    def thresholds(self) -> tuple[float, ...]:
        """What the effect must be above, or the two numbers that it must lie between."""
        ...

    def contrasts(self, values: Floats) -> Floats:
        """Return the M contrasts of values (Q, ...), (M, ...): the claim is that all are > 0."""
        ...

    def parts(self, values: Floats) -> Floats:
        """Return what the effect is the least of, affine in values (Q, ...), (P, ...)."""
        ...

    def effect(self, values: Floats) -> Floats:
        """Return the one number that is shown, of values (Q, ...), (...), such as a - b."""
        ...

    @property
    def room(self) -> float:
        """How far from the nearer bound equal quantities are that it holds for; 0 for none."""
        ...

    def describe(self) -> str:
        """Return the statement in symbols, such as "a > b"."""
        ...


class LeastPart(ABC):
    """A claim whose effect is the least of its parts, in the best of its alternatives."""

    @property
    def alternatives(self) -> int:
        """One; see `Claim`."""
        return 1

    @property
    def thresholds(self) -> tuple[float, ...]:
        """Zero; see `Claim`."""
        return (0.0,)

    @property
    def room(self) -> float:
        """What the thresholds leave about 0; see `Claim`."""
        bounds = self.thresholds
        return max(0.0, -bounds[0]) if len(bounds) == 1 else min(-bounds[0], bounds[1])

    @abstractmethod
    def parts(self, values: Floats) -> Floats:
        """See `Claim`."""

    def effect(self, values: Floats) -> Floats:
        """Return the least part; see `Claim`."""
        return deciding(self.parts(values), self.alternatives)


def deciding(parts: Floats, alternatives: int) -> Floats:
    """Return the least part of the best alternative, (P, ...) -> (...)."""
    blocks: Floats = parts.reshape(alternatives, -1, *parts.shape[1:])
    return np.asarray(blocks.min(1).max(0))


def told(written: object) -> str:
    """Return a quantity in words, as it stands in a statement."""
    quantity = parse(written, "quantity")
    return f"({quantity})" if isinstance(quantity, Combined) else str(quantity)


CLAIMS = Registry("claim", __name__)
