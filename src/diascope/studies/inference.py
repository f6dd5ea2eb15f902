"""How sure one may be of what was measured: standard errors, p, limits, and what would suffice.

A piece is an affine function of a sample's atoms, such as a difference. Its standard error is that
of its bootstrap replicates, its reference distribution Student's t: a percentile interval of five
seeds cannot reach beyond them, and one of a few groups is too narrow (Hesterberg 2015, section
4.3).

A sample without spread is not certainty. Where G groups are all alike, the share of groups of
another kind may still be up to 1 - tail^(1/G) (Clopper and Pearson 1934); where a piece lies in a
known range, as differences of proportions do, that bounds its mean. No p is smaller, and no limit
nearer, than this allows, with or without spread; it is the sign test where all pairs differ in the
same way. A piece of unknown range without spread tells nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtr, stdtrit
from scipy.stats import norm

from diascope.evaluation.resampling import Floats
from diascope.studies.panel import Bools
from diascope.studies.samples import Sample

POWER = 0.8
_QUANTILE = float(norm.ppf(POWER))
MOST_IMAGES, MOST_SEEDS = 10_000_000, 10_000  # beyond these no number is named
_EXACT = 1e-12  # a standard error that is rounding


@dataclass(frozen=True)
class Affine:
    """P pieces of A atoms: coefficients (P, A), constants (P,)."""

    coefficients: Floats
    constants: Floats

    @classmethod
    def of(cls, pieces: Callable[[Floats], Floats], atoms: int) -> Affine:
        """Return the coefficients of an affine function of atoms' values (A, ...), (P, ...)."""
        corners = np.concatenate([np.zeros((atoms, 1)), np.eye(atoms)], axis=1)
        found = pieces(corners)
        return cls(found[:, 1:] - found[:, :1], found[:, 0])

    def __call__(self, values: Floats) -> Floats:
        """Return the pieces of values (A, N), (P, N)."""
        return np.asarray(self.coefficients @ values + self.constants[:, None])

    def range(self, proportion: Bools) -> tuple[Floats, Floats]:
        """Return the least and the greatest value (P,) that each piece may have."""
        unknown = (self.coefficients[:, ~proportion] != 0).any(1)
        known = self.coefficients * proportion
        low = np.where(unknown, -np.inf, self.constants + np.minimum(known, 0).sum(1))
        high = np.where(unknown, np.inf, self.constants + np.maximum(known, 0).sum(1))
        return low, high


@dataclass(frozen=True)
class Spread:
    """P pieces as measured, (P,) each: value, and variance of the value by images and by seeds.

    of_both: what of `by_seeds` comes from seeds that differ by the images, and would be less with
    more of them. It stands there twice, being drawn with images and with seeds (Owen 2007), so
    that with many seeds an interval is rather too wide than too narrow.
    low, high: what is possible. groups: of the atom with the fewest. seeds: how many were drawn,
    0 where none were. A variance is NaN where it cannot be known.
    """

    value: Floats
    by_images: Floats
    by_seeds: Floats
    of_both: Floats
    low: Floats
    high: Floats
    groups: int
    seeds: int

    @classmethod
    def of(cls, pieces: Affine, sample: Sample) -> Spread:
        """Return the spread of pieces over a sample."""
        value = pieces(sample.by_seed.mean(1, keepdims=True))[:, 0]
        groups, seeds = sample.fewest, len(sample.seeds) if sample.seeds_drawn else 0
        shape = sample.drawn.shape
        drawn = pieces(sample.drawn.reshape(shape[0], -1)).reshape(-1, *shape[1:])  # (P, R, S)
        averaged = drawn.mean(2)
        by_images = _variance(averaged)
        by_seeds = of_both = np.zeros(len(value))
        if seeds:
            total = _variance(np.einsum("prs,rs->pr", drawn, sample.weights))
            by_seeds = np.maximum(total - by_images, 0)
            apart = _variance(drawn - averaged[:, :, None]).mean(1) / (seeds - 1)
            of_both = np.minimum(2 * apart, by_seeds)
        by_images *= groups / (groups - 1) if groups > 1 else np.nan
        low, high = pieces.range(sample.proportion)
        return cls(value, by_images, by_seeds, of_both, low, high, groups, seeds)

    @property
    def error(self) -> Floats:
        """The standard error, (P,); 0 where there is no spread."""
        error = np.sqrt(self.by_images + self.by_seeds)
        return np.where(error < _EXACT * (1 + np.abs(self.value)), 0.0, error)

    def above(self) -> Floats:
        """Return the one-sided p of "is at most 0", (P,); 1 where nothing is known."""
        return _tail(self.value, self.error, self._freedom(), self.low, self.groups)

    def below(self) -> Floats:
        """Return the one-sided p of "is at least 0", (P,); 1 where nothing is known."""
        return _tail(-self.value, self.error, self._freedom(), -self.high, self.groups)

    def limits(self, tail_low: float, tail_high: float) -> tuple[Floats, Floats]:
        """Return the limits (P,) beyond which the value lies with these probabilities, or NaN."""
        slack_low = 1 - tail_low ** (1 / self.groups)
        slack_high = 1 - tail_high ** (1 / self.groups)
        error, freedom = self.error, self._freedom()
        with np.errstate(invalid="ignore"):
            low = np.minimum(
                self.value + stdtrit(freedom, tail_low) * error,
                np.where(np.isfinite(self.low), self.value - slack_low * (self.value - self.low),
                         np.where(error > 0, np.inf, np.nan)),
            )  # fmt: skip
            high = np.maximum(
                self.value - stdtrit(freedom, tail_high) * error,
                np.where(np.isfinite(self.high), self.value + slack_high * (self.high - self.value),
                         np.where(error > 0, -np.inf, np.nan)),
            )  # fmt: skip
        return np.maximum(low, self.low), np.minimum(high, self.high)

    def needed(self, piece: int, tail: float) -> tuple[float, float]:
        """Return how many times the groups, or the seeds, would show the sign of a piece.

        With a probability of `POWER`, at the one-sided level `tail`, if the value and its spread
        are those seen here; inf where no number would.
        """
        value = abs(float(self.value[piece]))
        spread = self.error[piece] > 0
        images, seeds, both = (
            float(v[piece]) * spread for v in (self.by_images, self.by_seeds, self.of_both)
        )
        far = self.low[piece] if self.value[piece] > 0 else -self.high[piece]

        def enough(more_groups: float, more_seeds: float) -> bool:
            of_images = images / more_groups
            of_seeds = (seeds - both + both / more_groups) / more_seeds
            groups = self.groups * more_groups
            freedom = _welch(of_images, groups - 1, of_seeds, self.seeds * more_seeds - 1)
            error = np.sqrt(of_images + of_seeds)
            exact = _unanimous(np.array([value]), np.array([far]), groups)[0]
            wide = value >= (_QUANTILE - stdtrit(freedom, tail)) * error
            return bool(wide and (exact <= tail if np.isfinite(far) else error > 0))

        if not (value > 0 and np.isfinite(images)):
            return np.inf, np.inf
        more_groups = _least(lambda factor: enough(factor, 1.0))
        return more_groups, _least(lambda factor: enough(1.0, factor)) if self.seeds else np.inf

    def _freedom(self) -> Floats:
        return np.asarray(_welch(self.by_images, self.groups - 1, self.by_seeds, self.seeds - 1))


def _variance(drawn: Floats) -> Floats:
    """Return the variance of replicates (P, R, ...), (P, ...); NaN where half are undefined."""
    there = ~np.isnan(drawn)
    count = there.sum(1)
    mean = np.where(there, drawn, 0.0).sum(1) / np.maximum(count, 1)
    squares = np.where(there, drawn - mean[:, None], 0.0) ** 2
    enough = 2 * count > drawn.shape[1]
    return np.where(enough, squares.sum(1) / np.maximum(count - 1, 1), np.nan)


def _welch(images: Floats | float, of_images: float, seeds: Floats | float, of_seeds: float) -> Any:
    """Return the degrees of freedom of a sum of two variances (Satterthwaite 1946)."""
    squares = np.square(images) / max(of_images, 1) + np.square(seeds) / max(of_seeds, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.square(np.add(images, seeds)) / squares
    return np.where(np.isfinite(found), found, max(of_images, 1))


def _tail(value: Floats, error: Floats, freedom: Floats, low: Floats, groups: int) -> Floats:
    """Return the one-sided p of "is at most 0" of pieces that are at least `low`, (P,)."""
    with np.errstate(invalid="ignore", divide="ignore"):
        p = np.where(error > 0, stdtr(freedom, -value / error), np.where(value > 0, 0.0, 1.0))
    p = np.maximum(p, np.where(np.isfinite(low) | (error > 0), _unanimous(value, low, groups), 1.0))
    return np.where(np.isnan(error), 1.0, p)


def _unanimous(value: Floats, low: Floats, groups: float) -> Floats:
    """Return the chance that a mean of at most 0 shows `groups` alike ones of `value`, (P,).

    The mean is at most 0 where a share of at least value / (value - low) of the groups is at the
    lowest; 0 where there is no lowest.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        share = np.where(np.isfinite(low), value / (value - low), 1.0)
        return np.where(value > 0, np.clip(1 - share, 0, 1) ** groups, 0.0)


def _least(enough: Callable[[float], bool], most: float = 2.0**40) -> float:
    """Return the least factor of at least 1 that is enough, within 0.1%; inf for none."""
    if enough(1.0):
        return 1.0
    high = 2.0
    while not enough(high):
        high *= 2
        if high > most:
            return np.inf
    low = high / 2
    while high / low > 1.001:
        middle = np.sqrt(low * high)
        low, high = (low, middle) if enough(middle) else (middle, high)
    return float(high)


def union(above: Floats, below: Floats, parts: int) -> tuple[Floats, Floats]:
    """Return the one-sided p of "the claim does not hold" and of "it holds", (...) each.

    above, below: (..., K, M) of the M contrasts of K alternatives, as of `Spread`. parts: of each
    alternative, any of which may refute it.
    """
    support = above.shape[-2] * above.max(-1).min(-1)
    refute = parts * below.min(-1).max(-1)
    return np.minimum(support, 1.0), np.minimum(refute, 1.0)


def holm(p: Sequence[float]) -> tuple[list[float], list[int]]:
    """Return each p after Holm's correction (1979), and the number it was multiplied by."""
    corrected, factors = [0.0] * len(p), [0] * len(p)
    highest = 0.0
    for rank, place in enumerate(np.argsort(np.asarray(p), kind="stable")):
        factors[place] = len(p) - rank
        highest = min(1.0, max(highest, p[place] * factors[place]))
        corrected[place] = highest
    return corrected, factors
