"""One claim measured: which of its contrasts decides, with what p, and what is shown of it.

A claim says that certain contrasts are all above zero, those of its conditions among them. It is
supported where the least sure of them is shown to be, and refuted where one is shown to be below
(an intersection-union test, Berger 1982, with Bonferroni's factor for having looked for it).

Of fewer seeds than are drawn, which are averaged, nothing is said unless each of them by itself
says the same: the claim holds for the values of every seed, or for those of none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from diascope.evaluation.resampling import Floats
from diascope.studies.claims import deciding
from diascope.studies.inference import MOST_IMAGES, MOST_SEEDS, Affine, Spread, union
from diascope.studies.quantities import Quantity, atoms
from diascope.studies.results import Bounds, Condition, Decision, QuantityResult, Verdict, told
from diascope.studies.samples import Sample
from diascope.studies.stated import Stated

LEVEL = 0.05
_EDGE = 1e-12  # a difference that is rounding


@dataclass
class Measured:
    """A claim on one attack, and once it is known, the correction for the number of claims.

    piece: the contrast that decides; tail_factor: by which its p was multiplied for having been
    picked. signs: of each seed 1 where the claim holds for its values, -1 where it does not, and 0
    on the very edge. factor: by which Holm's method multiplied p, of `family` claims.
    """

    stated: Stated
    sample: Sample
    contrasts: Spread
    p: float
    direction: Verdict  # "supported" or "refuted", if anything
    piece: int
    tail_factor: int
    signs: tuple[int, ...]
    p_corrected: float = 1.0
    factor: int = 1
    family: int = 1

    @classmethod
    def of(cls, stated: Stated, found: Sample) -> Measured:
        """Return what a sample of the claim's atoms says of it."""
        own, blocks = list(found.atoms), stated.claim.alternatives
        all_of = stated.contrasts(own)
        contrasts = Spread.of(all_of, found)
        places = np.arange(len(contrasts.value)).reshape(blocks, -1)
        many = len(stated.affine(stated.claim.parts, own).constants) // blocks + len(stated.above)
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
        least = deciding(all_of(found.by_seed), blocks)
        signs = tuple(int(sign) for sign in np.sign(np.where(abs(least) < _EDGE, 0, least)))
        return cls(stated, found, contrasts, p, direction, piece, factor, signs)

    @property
    def of_new_seeds(self) -> bool:
        """Whether p speaks of new seeds: they are drawn, and not all alike to the last image.

        A support rests on all contrasts of an alternative, a refutation on the one that decides.
        """
        pieces = np.array([self.piece])
        if self.direction == "supported":
            inner = len(self.contrasts.value) // self.stated.claim.alternatives
            pieces = self.piece // inner * inner + np.arange(inner)
        return bool(self.contrasts.of_new_seeds[pieces].all())

    @property
    def seeds_differ(self) -> bool:
        """Whether seeds that are not drawn differ, or each says what their mean does not."""
        if self.sample.seeds_drawn:
            return False
        shown = self.p_corrected < LEVEL
        said = {1 if self.direction == "supported" else -1} if shown else set(self.signs[:1])
        return set(self.signs) != said

    @property
    def verdict(self) -> Verdict:
        """The verdict, once `p_corrected` is known."""
        return self.direction if self.p_corrected < LEVEL and not self.seeds_differ else "undecided"

    def told_seeds(self) -> str:
        """Return what is to be said of seeds that differ; empty where they do not."""
        if not self.seeds_differ:
            return ""
        own = list(self.sample.atoms)
        effect = self.stated.claim.effect(self.stated.values(self.sample.by_seed, own))
        sides: dict[bool, list[str]] = {True: [], False: []}
        for seed, value, sign in zip(self.sample.seeds, effect, self.signs, strict=True):
            sides[sign > 0].append(f"seed {seed} ({value:+.3g})")
        if not (sides[True] and sides[False]):
            held = "and for each alone" if sides[True] else "and for none alone"
            together = "does not hold" if sides[True] else "holds"
            told = ", ".join(sides[True] or sides[False])
            return f"the seeds differ: it {together} for their mean, {held}: {told}"
        held, not_held = ", ".join(sides[True]), ", ".join(sides[False])
        return f"the seeds differ: it holds for {held}, and not for {not_held}"

    def told_conditions(self) -> str:
        """Return the conditions that keep the claim from being supported; empty for none."""
        if self.verdict == "supported":
            return ""
        inner = len(self.contrasts.value) // self.stated.claim.alternatives
        decides = self.piece % inner - (inner - len(self.stated.above))
        refuted = self.verdict == "refuted"
        lacks = "does not hold" if refuted else "is not shown"
        return "; ".join(
            f"its condition {each.name} {lacks} (by {told(each.difference)})"
            for place, each in enumerate(self._conditions())
            if place == decides or (refuted and each.p_below < LEVEL / 2)
        )

    def effect(self) -> Bounds:
        """Return the effect; its limits are the values that the test would not refute."""
        own, claim = list(self.sample.atoms), self.stated.claim
        parts = Spread.of(self.stated.affine(claim.parts, own), self.sample)
        blocks = claim.alternatives
        many = len(parts.value) // blocks
        low, high = parts.limits(LEVEL / 2 / blocks, LEVEL / 2 / many)
        value = float(deciding(parts.value, blocks))
        return _bounds(value, float(deciding(low, blocks)), float(deciding(high, blocks)))

    def decision(self, available: int | None = None) -> Decision:
        """Return all that is shown of it; available: the images that its tests have."""
        own, s = list(self.sample.atoms), self.sample
        by_seed = self.stated.claim.effect(self.stated.values(s.by_seed, own))
        images, seeds, both = self._needed()
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
            needed_both=both,
            available_images=available,
            images_by_seed=dict(zip(s.seeds, map(int, s.total_by_seed), strict=True)),
            thresholds=list(self.stated.claim.thresholds),
            seeds_drawn=self.of_new_seeds,
            seeds_differ=self.seeds_differ,
            family=self.family,
            conditions=self._conditions(),
        )

    def _needed(self) -> tuple[int | None, int | None, tuple[int, int] | None]:
        if self.p_corrected < LEVEL or self.seeds_differ:
            return None, None, None
        tail = LEVEL / 2 / self.factor / self.tail_factor
        times, s = self.contrasts.needed(self.piece, tail), self.sample
        images = _count(times.images * s.examined, MOST_IMAGES)
        seeds = _count(times.seeds * len(s.seeds), MOST_SEEDS)
        more = _count(times.both * s.examined, MOST_IMAGES)
        both = _count(times.both * len(s.seeds), MOST_SEEDS)
        together = None if images or seeds or not more or not both else (more, both)
        return images, seeds, together

    def _quantities(self) -> list[QuantityResult]:
        own, s = list(self.sample.atoms), self.sample
        spread, low, high = self._shown(lambda values: self.stated.values(values, own))
        by_seed = self.stated.values(s.by_seed, own)
        found = []
        for q, quantity in enumerate(self.stated.quantities):
            read = [own.index(atom) for atom in atoms(quantity)]
            images, groups = (int(n[read].min()) if read else 0 for n in (s.images, s.groups))
            each = s.images_by_seed[read].min(0).tolist() if read else []
            found.append(
                QuantityResult(
                    name=str(quantity),
                    bounds=_bounds(float(spread.value[q]), float(low[q]), float(high[q])),
                    seeds=_by_seed(s, by_seed[q]),
                    images=images,
                    groups=groups,
                    images_by_seed=dict(zip(s.seeds, each, strict=True)) if read else {},
                )
            )
        return found

    def _conditions(self) -> list[Condition]:
        own, s = list(self.sample.atoms), self.sample
        if not self.stated.above:
            return []
        spread, low, high = self._shown(lambda values: self.stated.differences(values, own))
        by_seed = self.stated.differences(s.by_seed, own)
        above, below = spread.above(), spread.below()
        return [
            Condition(
                condition_name(pair),
                _bounds(float(spread.value[c]), float(low[c]), float(high[c])),
                float(above[c]),
                float(below[c]),
                _by_seed(s, by_seed[c]),
            )
            for c, pair in enumerate(self.stated.above)
        ]

    def _shown(self, pieces: Callable[[Floats], Floats]) -> tuple[Spread, Floats, Floats]:
        """Return pieces of the atoms with their limits of 95%."""
        spread = Spread.of(Affine.of(pieces, len(self.sample.atoms)), self.sample)
        return spread, *spread.limits(LEVEL / 2, LEVEL / 2)


def condition_name(pair: tuple[Quantity, Quantity]) -> str:
    """Return a condition in symbols, "QUANTITY > LEVEL"."""
    return f"{pair[0]} > {pair[1]}"


def _bounds(value: float, low: float, high: float) -> Bounds:
    known = bool(np.isfinite(low) and np.isfinite(high))
    return Bounds(value, low if known else None, high if known else None)


def _by_seed(found: Sample, values: Floats) -> dict[int, float]:
    return {s: float(value) for s, value in zip(found.seeds, values, strict=True)}


def _count(needed: float, most: int) -> int | None:
    return int(np.ceil(needed)) if needed <= most else None
