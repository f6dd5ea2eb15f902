"""How sure one may be of what was measured: standard errors, p, limits, and what would suffice.

A piece is an affine function of a sample's atoms, such as a difference. Its variance by images is
that of its bootstrap replicates, its variance by seeds that of the mean of the seeds' values; seeds
and images are crossed, so that what comes of both together stands in each and is counted once. Its
reference distribution is Student's t: a percentile interval of five seeds cannot reach beyond
them, and one of a few groups is too narrow (Hesterberg 2015, section 4.3).

A sample without spread is not certainty. Where G groups are all alike, the share of groups of
another kind may still be up to 1 - tail^(1/G) (Clopper and Pearson 1934); where a piece lies in a
known range, as differences of proportions do, that bounds its mean. No p is smaller, and no limit
nearer, than this allows, with or without spread; it is the sign test where all pairs differ in the
same way. A piece of unknown range without spread tells nothing. Where all
seeds agree exactly, as where no image of any is left, nothing is known of new seeds: of five alike
up to half of all may be of another kind. What is said of such a piece is said of these seeds, over
images. (A piece of unknown range that every seed gives alike to the last digit does not depend on
the seed.)
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

    of_both: what comes of seeds that differ by the image, and would be less with more of either.
    It is part of `by_images` and of `by_seeds`, and no larger than either as it is kept here.
    low, high: what is possible. groups: of the atom with the fewest; alike: as many as count where
    all are alike, see `Sample`. seeds: how many were drawn, 0 where none were. A variance is NaN
    where it cannot be known.
    """

    value: Floats
    by_images: Floats
    by_seeds: Floats
    of_both: Floats
    low: Floats
    high: Floats
    groups: int
    alike: float
    seeds: int

    @classmethod
    def of(cls, pieces: Affine, sample: Sample) -> Spread:
        """Return the spread of pieces over a sample."""
        value = pieces(sample.by_seed.mean(1, keepdims=True))[:, 0]
        groups, seeds = sample.fewest, len(sample.seeds) if sample.seeds_drawn else 0
        averaged = sample.drawn.mean(2)
        corrected = groups / (groups - 1) if groups > 1 else np.nan
        by_images = _variance(pieces(averaged)) * corrected
        by_seeds = of_both = np.zeros(len(value))
        if seeds:
            stretch, weights = sample.stretch[:, None], pieces.coefficients
            apart = sample.by_seed - sample.by_seed.mean(1, keepdims=True)
            of_seeds = weights @ (stretch * apart)
            by_seeds = np.square(of_seeds).sum(1) / (seeds - 1) / seeds
            further = stretch[:, :, None] * (sample.drawn - averaged[:, :, None])
            further = (weights @ further.reshape(len(stretch), -1)).reshape(-1, *further.shape[1:])
            of_both = _variance(further).mean(1) * corrected / (seeds - 1)
            of_both = np.minimum(of_both, np.minimum(by_images, by_seeds))
        low, high = pieces.range(sample.proportion)
        return cls(value, by_images, by_seeds, of_both, low, high, groups, sample.alike, seeds)

    @property
    def error(self) -> Floats:
        """The standard error, (P,); 0 where there is no spread."""
        return self._rounded(np.sqrt(self.by_images + self.by_seeds - self.of_both))

    def above(self) -> Floats:
        """Return the one-sided p of "is at most 0", (P,); 1 where nothing is known."""
        return _tail(self.value, self.error, self._freedom(), self.low, self.alike)

    def below(self) -> Floats:
        """Return the one-sided p of "is at least 0", (P,); 1 where nothing is known."""
        return _tail(-self.value, self.error, self._freedom(), -self.high, self.alike)

    def limits(self, tail_low: float, tail_high: float) -> tuple[Floats, Floats]:
        """Return the limits (P,) beyond which the value lies with these probabilities, or NaN."""
        slack_low = 1 - tail_low ** (1 / self.alike)
        slack_high = 1 - tail_high ** (1 / self.alike)
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

    def needed(self, piece: int, tail: float) -> Needed:
        """Return what would show the sign of a piece.

        With a probability of `POWER`, at the one-sided level `tail`, if the value and its spread
        are those seen here.
        """
        value = abs(float(self.value[piece]))
        spread = self.error[piece] > 0
        images, seeds, both = (
            float(v[piece]) * spread for v in (self.by_images, self.by_seeds, self.of_both)
        )
        far = self.low[piece] if self.value[piece] > 0 else -self.high[piece]

        def enough(more_groups: float, more_seeds: float) -> bool:
            of_both = both / (more_groups * more_seeds)
            of_images = (images - both) / more_groups + of_both
            of_seeds = (seeds - both) / more_seeds + of_both
            groups = self.groups * more_groups
            freedom = _welch(of_images, groups - 1, of_seeds, self.seeds * more_seeds - 1)
            error = np.sqrt(of_images + of_seeds - of_both)
            exact = _unanimous(np.array([value]), np.array([far]), self.alike * more_groups)[0]
            wide = value >= (_QUANTILE - stdtrit(freedom, tail)) * error
            return bool(wide and (exact <= tail if np.isfinite(far) else error > 0))

        if not (value > 0 and np.isfinite(images)):
            return Needed()
        more_images = _least(lambda factor: enough(factor, 1.0))
        if not self.seeds:
            return Needed(more_images)
        more_seeds = _least(lambda factor: enough(1.0, factor))
        return Needed(more_images, more_seeds, _least(lambda factor: enough(factor, factor)))

    @property
    def of_new_seeds(self) -> Bools:
        """Whether what is said of a piece is said of new seeds, (P,)."""
        if not self.seeds:
            return np.zeros(len(self.value), np.bool_)
        same = self._rounded(np.sqrt(self.by_seeds)) == 0
        may_vary = np.isfinite(self.low) & np.isfinite(self.high) & (self.low < self.high)
        return np.asarray(~(same & may_vary))

    def _freedom(self) -> Floats:
        return np.asarray(_welch(self.by_images, self.groups - 1, self.by_seeds, self.seeds - 1))

    def _rounded(self, error: Floats) -> Floats:
        return np.where(error < _EXACT * (1 + np.abs(self.value)), 0.0, error)


@dataclass(frozen=True)
class Needed:
    """How many times the groups alone, the seeds alone, or both would suffice; inf for none."""

    images: float = np.inf
    seeds: float = np.inf
    both: float = np.inf


def _variance(drawn: Floats) -> Floats:
    """Return the variance of replicates (P, R, ...), (P, ...); NaN where half are undefined."""
    there = ~np.isnan(drawn)
    count = there.sum(1)
    mean = np.where(there, drawn, 0.0).sum(1) / np.maximum(count, 1)
    squares = np.where(there, drawn - mean[:, None], 0.0) ** 2
    enough = 2 * count > drawn.shape[1]
    return np.where(enough, squares.sum(1) / np.maximum(count - 1, 1), np.nan)


def _welch(images: Floats | float, of_images: float, seeds: Floats | float, of_seeds: float) -> Any:
    """Return the degrees of freedom of the two variances together (Satterthwaite 1946).

    Of what they have in common, and is counted once, no account is taken: tests/studies shows that
    a test of level 5% rejects 3 to 5.5% of true statements.
    """
    squares = np.square(images) / max(of_images, 1) + np.square(seeds) / max(of_seeds, 1)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = np.square(np.add(images, seeds)) / squares
    return np.where(np.isfinite(found), found, max(of_images, 1))


def _tail(value: Floats, error: Floats, freedom: Floats, low: Floats, groups: float) -> Floats:
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


def least_room(images: int, tail: float) -> float:
    """Return how far from 0 the mean of so many images may be that all show no difference."""
    return float(1 - tail ** (1 / images))


def images_for(room: float, tail: float) -> int:
    """Return of how many images, none of which shows a difference, the mean is nearer to 0."""
    return int(np.floor(np.log(tail) / np.log1p(-room))) + 1


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
