"""Deciding claims: effect, interval, p, and a verdict, from the tables of a study.

A claim says that certain contrasts are all above zero. It is supported where the least sure of
them is shown to be, and refuted where one is shown to be below (an intersection-union test, Berger
1982, with Bonferroni's factor for having looked for it). p is two-sided, and corrected by Holm's
method for the number of claims of the study; the decisions on the strongest attacks are a family
of their own. With five or more seeds the verdict speaks of new images and new seeds; with fewer,
of new images and these very models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from diascope.errors import UserError
from diascope.evaluation.resampling import REPLICATES, Floats
from diascope.studies.claims import CLAIMS, Claim, deciding
from diascope.studies.inference import MOST_IMAGES, MOST_SEEDS, Affine, Spread, holm
from diascope.studies.masked import Masked, Masking, masked, on_strongest, under_attack
from diascope.studies.quantities import (
    ATTACKED,
    Atom,
    Quantity,
    atoms,
    check,
    compute,
    parse,
    replaced,
)
from diascope.studies.results import Bounds, ClaimResult, Decision, QuantityResult, Verdict, told
from diascope.studies.samples import Missing, Sample, Tables, Undefined, sample
from diascope.studies.study import ClaimSpec, Study

LEVEL = 0.05


@dataclass(frozen=True)
class Stated:
    """A claim of a study as it was read, and its quantities."""

    claim: Claim
    quantities: tuple[Quantity, ...]

    @property
    def atoms(self) -> list[Atom]:
        """What it reads of the tables, each once."""
        return list(dict.fromkeys(atom for q in self.quantities for atom in atoms(q)))

    def affine(self, pieces: Callable[[Floats], Floats], own: list[Atom]) -> Affine:
        """Return pieces of the quantities as pieces of the atoms `own`."""
        return Affine.of(lambda values: pieces(self.values(values, own)), len(own))

    def values(self, of_atoms: Floats, own: list[Atom]) -> Floats:
        """Return the quantities (Q, ...) of atoms' values (A, ...)."""
        place = {atom: a for a, atom in enumerate(own)}
        shape = of_atoms.shape[1:]
        return np.stack(
            [
                compute(q, lambda atom: of_atoms[place[atom]], lambda v: np.full(shape, v))
                for q in self.quantities
            ]
        )


def read_claims(study: Study, file: str = "", *, columns: bool = True) -> dict[str, Stated]:
    """Return the claims of a study by name; a `UserError` says what they name wrongly.

    file: of the study, for messages. columns: whether to ask the evaluations for their columns.
    """
    read = {}
    for name, spec in study.claims.items():
        where = f"{file}: claims.{name}" if file else f"claims.{name}"
        claim: Claim = CLAIMS.build(spec.test, f"{where}.test")
        stated = Stated(claim, tuple(parse(q, f"{where}.test") for q in claim.quantities))
        if not stated.atoms:
            raise UserError(
                f"{where}.test: only numbers are compared; name a RUN/EVALUATION.COLUMN"
            )
        check(stated.atoms, study, f"{where}.test", columns=columns)
        read[name] = stated
    return read


def decide_study(
    study: Study,
    tables: Tables,
    masking: Masking | None = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> list[ClaimResult]:
    """Decide the claims of a study, in its order, and name those that cannot be tested here.

    tables: a frame by evaluation, run and seed, as far as they are there; masking: the outcomes of
    the checks on gradient masking in the same order. The same tables and seed give the same
    results.
    """
    trials = {
        name: _Trial.of(stated, study, tables, masking or {}, replicates, seed)
        for name, stated in read_claims(study, columns=False).items()
    }
    for family in ("paper", "strongest"):
        measured = [m for trial in trials.values() if (m := getattr(trial, family)) is not None]
        corrected, factors = holm([m.p for m in measured])
        for m, p, factor in zip(measured, corrected, factors, strict=True):
            m.p_corrected, m.factor = p, factor
    decided = [trials[name].result(name, study.claims[name]) for name in trials]
    untestable = [
        ClaimResult(
            name, each.says, "", "not testable here", each.published, each.where, each.reason
        )
        for name, each in study.untestable.items()
    ]
    return decided + untestable


@dataclass
class _Measured:
    """A claim on one attack: what was found, before the correction for the number of claims."""

    stated: Stated
    sample: Sample
    contrasts: Spread
    p: float
    direction: Verdict  # "supported" or "refuted", if anything
    piece: int  # the contrast that decides
    tail_factor: int  # by which its p was multiplied
    p_corrected: float = 1.0
    factor: int = 1

    @classmethod
    def of(cls, stated: Stated, found: Sample) -> _Measured:
        own = list(found.atoms)
        claim = stated.claim
        contrasts = Spread.of(stated.affine(claim.contrasts, own), found)
        blocks = claim.alternatives
        places = np.arange(len(contrasts.value)).reshape(blocks, -1)
        many = len(stated.affine(claim.parts, own).constants) // blocks
        above, below = contrasts.above()[places], contrasts.below()[places]
        support = min(1.0, blocks * above.max(1).min())
        refute = min(1.0, many * below.min(1).max())
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


@dataclass
class _Trial:
    """A claim measured on the paper's attack, and on the strongest where it is about robustness."""

    stated: Stated
    paper: _Measured | None = None
    strongest: _Measured | None = None
    lost: float = 1.0  # one-sided p of "the strongest attack takes nothing from the contrast"
    found_masked: tuple[Masked, ...] = ()
    reason: str = ""
    undefined: bool = False

    @classmethod
    def of(
        cls,
        stated: Stated,
        study: Study,
        tables: Tables,
        masking: Masking,
        replicates: int,
        seed: int,
    ) -> _Trial:
        tests = {name: spec.on for name, spec in study.evaluations.items()}

        def measured(own: list[Atom]) -> Sample:
            options: dict[str, Any] = {"replicates": replicates, "seed": seed}
            return sample(own, tables, tests, wanted=study.seeds, **options)

        trial = cls(stated)
        try:
            trial.paper = _Measured.of(stated, measured(stated.atoms))
        except Missing as lack:
            trial.reason, trial.undefined = f"{lack}", isinstance(lack, Undefined)
            return trial
        trial.reason = "; ".join(trial.paper.sample.notes)
        robust = [atom for atom in stated.atoms if under_attack(atom, tables)]
        pairs = [(atom.evaluation, atom.run) for atom in robust]
        trial.found_masked = tuple(masked(pairs, trial.paper.sample.seeds, masking))
        if all(atom == on_strongest(atom, tables) for atom in robust):
            return trial
        quantities = [replaced(q, lambda a: on_strongest(a, tables)) for q in stated.quantities]
        other = Stated(stated.claim, tuple(quantities))
        try:
            trial.strongest = _Measured.of(other, measured(other.atoms))
            both = Stated(stated.claim, stated.quantities + other.quantities)
            trial.lost = _lost(both, measured(both.atoms), trial.paper.piece)
        except Missing as lack:
            trial.reason = _joined(trial.reason, f"not decided on the strongest attack: {lack}")
        return trial

    def result(self, name: str, spec: ClaimSpec) -> ClaimResult:
        """Return the claim with its verdict."""
        verdict, reason = self._verdict()
        found: dict[str, list[str]] = {}
        for each in self.found_masked:
            found.setdefault(each.run, []).extend(each.failures)
        return ClaimResult(
            name=name,
            says=spec.says,
            statement=self.stated.claim.describe(),
            verdict=verdict,
            published=spec.published,
            where=spec.where,
            reason=_joined(self.reason, reason),
            instead_of=spec.instead_of,
            decision=self.paper.decision() if self.paper else None,
            strongest=self.strongest.decision() if self.strongest else None,
            masked=found,
        )

    def _verdict(self) -> tuple[Verdict, str]:
        if self.paper is None:
            return "undecided" if self.undefined else "not run", ""
        verdict = self.paper.verdict
        if verdict == "undecided":
            return verdict, ""
        said = [f"{verdict} in favour of {each.run}, whose gradients are masked: "
                f"{'; '.join(each.failures)}" for each in self._in_doubt()]  # fmt: skip
        if self.strongest and self.strongest.verdict != verdict:
            shown, worst = self.paper.effect(), self.strongest.effect()
            said.insert(0, f"{verdict} on {', '.join(self._attacks())} ({told(shown)}), "
                        f"{self.strongest.verdict} on the strongest attack ({told(worst)}, "
                        f"{self.strongest.sample.total_images} images)")  # fmt: skip
            if verdict == "supported" and not self._fell() and not self._in_doubt():
                said.append("too few images to say that the strongest attack takes it away")
                return "undecided", "; ".join(said)
        elif not said:
            return verdict, ""
        return ("under a masked gradient" if verdict == "supported" else verdict), "; ".join(said)

    def _fell(self) -> bool:
        assert self.strongest is not None
        return self.strongest.verdict == "refuted" or self.lost < LEVEL / 2

    def _in_doubt(self) -> list[Masked]:
        """Return the masked runs among those that the outcome favours."""
        assert self.paper is not None
        own = list(self.paper.sample.atoms)
        weights = self.stated.affine(self.stated.claim.contrasts, own).coefficients
        if self.paper.direction == "refuted":
            weights = -weights[[self.paper.piece]]
        attacked = [bool(ATTACKED.fullmatch(atom.column)) for atom in own]
        favoured = {
            atom.run
            for atom, weight, robust in zip(own, weights.T, attacked, strict=True)
            if robust and (weight > 0).any()
        }
        return [each for each in self.found_masked if each.decides and each.run in favoured]

    def _attacks(self) -> list[str]:
        found = [atom.column for atom in self.stated.atoms if ATTACKED.fullmatch(atom.column)]
        return list(dict.fromkeys(found))


def _lost(both: Stated, found: Sample, piece: int) -> float:
    """Return the p of "a contrast is no less on the strongest attack", on the same images."""

    def less(values: Floats) -> Floats:
        half = len(values) // 2
        paper, strongest = values[:half], values[half:]
        return (both.claim.contrasts(paper) - both.claim.contrasts(strongest))[[piece]]

    return float(Spread.of(both.affine(less, list(found.atoms)), found).above()[0])


def _bounds(value: float, low: float, high: float) -> Bounds:
    known = bool(np.isfinite(low) and np.isfinite(high))
    return Bounds(value, low if known else None, high if known else None)


def _by_seed(found: Sample, values: Floats) -> dict[int, float]:
    return {s: float(value) for s, value in zip(found.seeds, values, strict=True)}


def _joined(*said: str) -> str:
    return "; ".join(each for each in said if each)
