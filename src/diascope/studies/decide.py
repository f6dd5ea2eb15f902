"""Deciding claims: effect, interval, p, and a verdict, from the tables of a study.

p is two-sided, and corrected by Holm's method for the number of claims of the study; the decisions
on the strongest attacks are a family of their own. With five or more seeds the verdict speaks of
new images and new seeds; with fewer, or where all models agree exactly, of new images and these
very models. There is none where fewer models differ in whether the claim holds.

An outcome of a claim about robustness, support or refutation, that the attacks it names show, and
the strongest attack turns round or takes away, is one "under a weak attack"; one in favour of a
run whose gradients the checks find masked, one "under a masked gradient". Where the strongest
attack, which may have seen fewer images, decides nothing and takes nothing away that could be told
from chance, the claim is undecided. Where a check finds that the attack on a run in favour had not
found all that it can, the verdict is qualified: by how much it would fall is not known.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from diascope.evaluation.resampling import REPLICATES, Floats
from diascope.studies.inference import Affine, Spread, holm
from diascope.studies.masked import (
    Masking,
    checked,
    failed_checks,
    not_finished,
    often,
    on_strongest,
    told_check,
    under_attack,
)
from diascope.studies.measured import LEVEL, Measured
from diascope.studies.panel import Missing, Tables, Undefined
from diascope.studies.quantities import ATTACKED, Atom
from diascope.studies.results import ClaimResult, FailedCheck, Verdict, told
from diascope.studies.samples import Sample, sample
from diascope.studies.stated import Stated, read_claims
from diascope.studies.study import NEXT, ClaimSpec, Study

__all__ = ["decide_study", "read_claims"]

_WEAK: dict[Verdict, Verdict] = {
    "supported": "under a weak attack",
    "refuted": "refuted under a weak attack",
}
_MASKED: dict[Verdict, Verdict] = {
    "supported": "under a masked gradient",
    "refuted": "refuted under a masked gradient",
}


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
            m.p_corrected, m.factor, m.family = p, factor, len(measured)
    decided = [trials[name].result(name, study.claims[name]) for name in trials]
    untestable = [
        ClaimResult(
            name, each.says, "", "not testable here", each.published, each.where, each.reason
        )
        for name, each in study.untestable.items()
    ]
    return decided + untestable


@dataclass
class _Trial:
    """A claim measured on the paper's attack, and on the strongest where it is about robustness."""

    stated: Stated
    paper: Measured | None = None
    strongest: Measured | None = None
    lost: float = 1.0  # one-sided p of "the strongest attack takes nothing from the contrast"
    checked: dict[str, int] = field(default_factory=dict)
    failed: list[FailedCheck] = field(default_factory=list)
    available: int | None = None
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
        options: dict[str, Any] = {"replicates": replicates, "seed": seed}
        options["pairs"] = [n for n, each in study.evaluations.items() if each.beside == "seeds"]
        options["rings"] = [
            n for n, each in study.evaluations.items() if any(b.endswith(NEXT) for b in each.beside)
        ]

        def measured(own: list[Atom]) -> Sample:
            return sample(own, tables, tests, wanted=study.seeds, **options)

        trial = cls(stated, available=_available(stated.atoms, study, tables))
        try:
            trial.paper = Measured.of(stated, measured(stated.atoms))
        except Missing as lack:
            trial.reason, trial.undefined = f"{lack}", isinstance(lack, Undefined)
            return trial
        trial.reason = "; ".join(trial.paper.sample.notes)
        robust = [atom for atom in stated.atoms if under_attack(atom, tables)]
        read = [(atom.evaluation, atom.run) for atom in robust]
        trial.checked = checked(read, trial.paper.sample.seeds, masking)
        trial.failed = failed_checks(read, trial.paper.sample.seeds, masking)
        if all(atom == on_strongest(atom, tables) for atom in robust):
            return trial
        other = stated.replaced(lambda atom: on_strongest(atom, tables))
        try:
            trial.strongest = Measured.of(other, measured(other.atoms))
            both = measured(list(dict.fromkeys(stated.atoms + other.atoms)))
            trial.lost = _lost(trial.paper, other, both)
        except Missing as lack:
            trial.reason = _joined(trial.reason, f"not decided on the strongest attack: {lack}")
        return trial

    def result(self, name: str, spec: ClaimSpec) -> ClaimResult:
        """Return the claim with its verdict."""
        self._favour()
        verdict, reason = self._verdict()
        paper, masked = self.paper, dict[str, list[str]]()
        for each in self.failed:
            if each.accuses == "gradients":
                masked.setdefault(each.run, []).append(told_check(each))
        given = paper is not None and verdict not in ("undecided", "not run")
        rests_on = [paper, self.strongest if verdict in _WEAK else None]
        these = [m for m in rests_on if given and m and not m.of_new_seeds]
        return ClaimResult(
            name=name,
            says=spec.says,
            statement=self.stated.describe(),
            verdict=verdict,
            published=spec.published,
            where=spec.where,
            reason=_joined(self.reason, reason),
            instead_of=spec.instead_of,
            decision=paper.decision(self.available) if paper else None,
            strongest=self.strongest.decision(self.available) if self.strongest else None,
            masked=masked,
            these_seeds=len(these[0].sample.seeds) if these else None,
            qualifications=[
                not_finished(some) for some in often(self._favoured(), "attack") if given
            ],
            checked=self.checked,
            failed=self.failed,
        )

    def _verdict(self) -> tuple[Verdict, str]:
        if self.paper is None:
            return "undecided" if self.undefined else "not run", ""
        verdict = self.paper.verdict
        condition = self.paper.told_conditions()
        if verdict == "undecided":
            return verdict, _joined(self.paper.told_seeds(), condition)
        doubts = often(self._favoured(), "gradients")
        said = [f"{verdict} in favour of {some[0].run}, whose gradients are masked: "
                f"{'; '.join(map(told_check, some))}" for some in doubts]  # fmt: skip
        if self.strongest and self.strongest.verdict != verdict:
            said.insert(0, self._told_strongest())
            if not self._fell() and not doubts:
                if not self.strongest.seeds_differ:
                    said.append("too few images to say that the strongest attack takes it away")
                return "undecided", _joined(condition, *said)
        elif not said:
            return verdict, condition
        return (_MASKED if doubts else _WEAK)[verdict], _joined(condition, *said)

    def _told_strongest(self) -> str:
        assert self.paper is not None
        assert self.strongest is not None
        shown, worst = self.paper.effect(), self.strongest.effect()
        return _joined(
            f"{self.paper.verdict} on {', '.join(self._attacks())} ({told(shown)}), "
            f"{self.strongest.verdict} on the strongest attack ({told(worst)}, "
            f"{self.strongest.sample.total_images} images)",
            self.strongest.told_seeds(),
            self.strongest.told_conditions(),
        )

    def _fell(self) -> bool:
        assert self.strongest is not None
        return self.strongest.verdict not in ("undecided", self._outcome()) or self.lost < LEVEL / 2

    def _outcome(self) -> Verdict:
        return "undecided" if self.paper is None else self.paper.verdict

    def _favour(self) -> None:
        """Note which of the runs with failed checks the outcome favours."""
        if self.paper is None or self._outcome() == "undecided":
            return
        own = list(self.paper.sample.atoms)
        weights = self.stated.contrasts(own).coefficients
        if self.paper.direction == "refuted":
            weights = -weights[[self.paper.piece]]
        favoured = {
            (atom.evaluation, atom.run)
            for atom, weight in zip(own, weights.T, strict=True)
            if ATTACKED.fullmatch(atom.column) and (weight > 0).any()
        }
        self.failed = [
            replace(each, favoured=(each.evaluation, each.run) in favoured) for each in self.failed
        ]

    def _favoured(self) -> list[FailedCheck]:
        return [each for each in self.failed if each.favoured]

    def _attacks(self) -> list[str]:
        found = [atom.column for atom in self.stated.atoms if ATTACKED.fullmatch(atom.column)]
        return list(dict.fromkeys(found))


def _lost(paper: Measured, other: Stated, found: Sample) -> float:
    """Return the p of "the outcome is shown no less on the strongest attack", on the same images.

    found: a sample of what both read.
    """
    own = list(found.atoms)
    named, worst = paper.stated.contrasts(own), other.contrasts(own)
    sign = 1.0 if paper.direction == "supported" else -1.0

    def less(values: Floats) -> Floats:
        return sign * (named(values) - worst(values))[[paper.piece]]

    return float(Spread.of(Affine.of(less, len(own)), found).above()[0])


def _available(read: list[Atom], study: Study, tables: Tables) -> int | None:
    """Return how many images the tests of atoms have; None where a test takes some of more."""
    total = 0
    for test in {study.evaluations[atom.evaluation].on for atom in read}:
        if study.tests[test].images is not None:
            return None
        on = [name for name, spec in study.evaluations.items() if spec.on == test]
        of_each = [len(t) for n in on for by_seed in tables.get(n, {}).values()
                   for t in by_seed.values()]  # fmt: skip
        total += max(of_each, default=0)
    return total or None


def _joined(*said: str) -> str:
    return "; ".join(each for each in said if each)
