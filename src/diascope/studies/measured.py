"""One claim measured: which of its contrasts decides, with what p, and what is shown of it.

A claim says that certain contrasts are all above zero. It is supported where the least sure of
them is shown to be, and refuted where one is shown to be below (an intersection-union test, Berger
1982, with Bonferroni's factor for having looked for it).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from diascope.evaluation.resampling import Floats
from diascope.studies.claims import deciding
from diascope.studies.inference import MOST_IMAGES, MOST_SEEDS, Spread, union
from diascope.studies.quantities import atoms
from diascope.studies.results import Bounds, Decision, QuantityResult, Verdict
from diascope.studies.samples import Sample
from diascope.studies.stated import Stated

LEVEL = 0.05


@dataclass
class Measured:
    """A claim on one attack, and once it is known, the correction for the number of claims.

    piece: the contrast that decides; tail_factor: by which its p was multiplied for having been
    picked. factor: by which Holm's method multiplied p.
    """

    stated: Stated
    sample: Sample
    contrasts: Spread
    p: float
    direction: Verdict  # "supported" or "refuted", if anything
    piece: int
    tail_factor: int
    p_corrected: float = 1.0
    factor: int = 1

    @classmethod
    def of(cls, stated: Stated, found: Sample) -> Measured:
        """Return what a sample of the claim's atoms says of it."""
        own = list(found.atoms)
        claim = stated.claim
        contrasts = Spread.of(stated.affine(claim.contrasts, own), found)
        blocks = claim.alternatives
        places = np.arange(len(contrasts.value)).reshape(blocks, -1)
        many = len(stated.affine(claim.parts, own).constants) // blocks
        above, below = contrasts.above()[places], contrasts.below()[places]
        support, refute = (float(p) for p in union(above, below, many))
        if support <= refute:
            row = int(above.max(1).argmin())
            piece, factor = int(places[row, above[row].argmax()]), blocks
        else:
            row = int(below.min(1).argmax())
            piece, factor = int(places[row, below[row].argmin()]), many
        direction: Verdict = "supported" if support <= refute else "refuted"
        p = min(1.0, 2 * min(support, refute))
        return cls(stated, found, contrasts, p, direction, piece, factor)

    @property
    def verdict(self) -> Verdict:
        """The verdict, once `p_corrected` is known."""
        return self.direction if self.p_corrected < LEVEL else "undecided"

    def effect(self) -> Bounds:
        """Return the effect; its limits are the values that the test would not refute."""
        own, claim = list(self.sample.atoms), self.stated.claim
        parts = Spread.of(self.stated.affine(claim.parts, own), self.sample)
        blocks = claim.alternatives
        many = len(parts.value) // blocks
        low, high = parts.limits(LEVEL / 2 / blocks, LEVEL / 2 / many)
        value = float(deciding(parts.value, blocks))
        return _bounds(value, float(deciding(low, blocks)), float(deciding(high, blocks)))

    def decision(self) -> Decision:
        """Return all that is shown of it."""
        own, s = list(self.sample.atoms), self.sample
        by_seed = self.stated.claim.effect(self.stated.values(s.by_seed, own))
        images, seeds = self._needed()
        return Decision(
            verdict=self.verdict,
            effect=self.effect(),
            by_seed=_by_seed(s, by_seed),
            p=float(self.p),
            p_corrected=float(self.p_corrected),
            quantities=self._quantities(),
            images=s.total_images,
            groups=s.total_groups,
            needed_images=images,
            needed_seeds=seeds,
        )

    def _needed(self) -> tuple[int | None, int | None]:
        if self.verdict != "undecided":
            return None, None
        tail = LEVEL / 2 / self.factor / self.tail_factor
        images, seeds = self.contrasts.needed(self.piece, tail)
        images, seeds = images * self.sample.total_images, seeds * len(self.sample.seeds)
        return (
            int(np.ceil(images)) if images <= MOST_IMAGES else None,
            int(np.ceil(seeds)) if seeds <= MOST_SEEDS else None,
        )

    def _quantities(self) -> list[QuantityResult]:
        own, s = list(self.sample.atoms), self.sample
        spread = Spread.of(self.stated.affine(lambda values: values, own), s)
        low, high = spread.limits(LEVEL / 2, LEVEL / 2)
        by_seed = self.stated.values(s.by_seed, own)
        found = []
        for q, quantity in enumerate(self.stated.quantities):
            read = [own.index(atom) for atom in atoms(quantity)]
            bounds = _bounds(float(spread.value[q]), float(low[q]), float(high[q]))
            counts = [int(n[read].min()) if read else 0 for n in (s.images, s.groups)]
            found.append(QuantityResult(str(quantity), bounds, _by_seed(s, by_seed[q]), *counts))
        return found


def _bounds(value: float, low: float, high: float) -> Bounds:
    known = bool(np.isfinite(low) and np.isfinite(high))
    return Bounds(value, low if known else None, high if known else None)


def _by_seed(found: Sample, values: Floats) -> dict[int, float]:
    return {s: float(value) for s, value in zip(found.seeds, values, strict=True)}
