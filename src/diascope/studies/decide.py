"""Deciding claims: effect, interval, p, and a verdict, from the tables of a study.

p is two-sided, and corrected by Holm's method for the number of claims of the study; the decisions
on the strongest attacks are a family of their own. With five or more seeds the verdict speaks of
new images and new seeds; with fewer, of new images and these very models.

A claim about robustness that the attacks it names support, and the strongest attack refutes or
takes away, holds "under a weak attack"; one in favour of a run whose gradients the checks find
masked holds "under a masked gradient". Where the strongest attack, which may have seen fewer
images, decides nothing and takes nothing away that could be told from chance, the claim is
undecided.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from diascope.evaluation.resampling import REPLICATES, Floats
from diascope.studies.inference import Spread, holm
from diascope.studies.masked import Masked, Masking, masked, on_strongest, under_attack
from diascope.studies.measured import LEVEL, Measured
from diascope.studies.panel import Missing, Tables, Undefined
from diascope.studies.quantities import ATTACKED, Atom, replaced
from diascope.studies.results import ClaimResult, Verdict, told
from diascope.studies.samples import Sample, sample
from diascope.studies.stated import Stated, read_claims
from diascope.studies.study import ClaimSpec, Study

__all__ = ["decide_study", "read_claims"]


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
class _Trial:
    """A claim measured on the paper's attack, and on the strongest where it is about robustness."""

    stated: Stated
    paper: Measured | None = None
    strongest: Measured | None = None
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
            trial.paper = Measured.of(stated, measured(stated.atoms))
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
            trial.strongest = Measured.of(other, measured(other.atoms))
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
        if verdict == "supported":
            masked = bool(self._in_doubt())
            verdict = "under a masked gradient" if masked else "under a weak attack"
        return verdict, "; ".join(said)

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


def _joined(*said: str) -> str:
    return "; ".join(each for each in said if each)
