"""Robustness that may not be there: claims on the strongest attack, and checks that failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np

from diascope.studies.panel import Tables
from diascope.studies.quantities import ATTACKED, STRONGEST, Atom
from diascope.studies.results import FailedCheck

Checks = Sequence[Mapping[str, Any]]  # each with "name", "verdict", "evidence"
Masking = Mapping[str, Mapping[str, Mapping[Any, Checks | None]]]  # evaluation -> run -> seed
Pairs = Iterable[tuple[str, str]]  # (evaluation, run)

OF_ATTACKS = ("plateau", "returned", "losses", "contract")
OF_REPORTS = ("reported",)


def under_attack(atom: Atom, tables: Tables) -> bool:
    """Tell whether an atom reads whether images withstood an attack.

    Its column is ATTACK@EPS, holds nothing but 0 and 1, and strongest@EPS stands beside it.
    """
    return _strongest(atom, tables) is not None


def on_strongest(atom: Atom, tables: Tables) -> Atom:
    """Return the atom on strongest@EPS where it reads ATTACK@EPS, and others as they are."""
    return _strongest(atom, tables) or atom


def _strongest(atom: Atom, tables: Tables) -> Atom | None:
    found = ATTACKED.fullmatch(atom.column)
    of_seeds = tables.get(atom.evaluation, {}).get(atom.run, {})
    if not found or not of_seeds:
        return None
    other = f"{STRONGEST}@{found['eps']}"
    for table in of_seeds.values():
        if atom.column not in table or other not in table:
            return None
        if not np.isin(table[atom.column].dropna().to_numpy(), (0, 1)).all():
            return None
    return replace(atom, column=other)


def checked(pairs: Pairs, seeds: Sequence[int], masking: Masking) -> dict[str, int]:
    """Return of each run in how many of the seeds the checks ran, the least of its evaluations."""
    found: dict[str, int] = {}
    for evaluation, run in dict.fromkeys(pairs):
        count = len(_outcomes(evaluation, run, seeds, masking))
        found[run] = min(count, found.get(run, count))
    return found


def failed_checks(pairs: Pairs, seeds: Sequence[int], masking: Masking) -> list[FailedCheck]:
    """Return the checks that failed for runs; none of them counts as favoured yet."""
    found = []
    for evaluation, run in dict.fromkeys(pairs):
        outcomes = _outcomes(evaluation, run, seeds, masking)
        evidence: dict[str, dict[int, str]] = {}
        for seed, checks in sorted(outcomes.items()):
            for check in checks:
                if check["verdict"] == "failed":
                    evidence.setdefault(check["name"], {})[seed] = str(check["evidence"])
        for name, of_seed in evidence.items():
            first = next(iter(of_seed.values()))
            failed = FailedCheck(
                run, evaluation, name, list(of_seed), len(outcomes), accused(name), False, first
            )
            found.append(failed)
    return found


def accused(check: str) -> Literal["gradients", "attack", "report"]:
    """Return what a check accuses where it fails."""
    if check in OF_REPORTS:
        return "report"
    return "attack" if check in OF_ATTACKS else "gradients"


def often(failed: Iterable[FailedCheck], accuses: str) -> list[list[FailedCheck]]:
    """Return the failed checks of one kind, those of a run and an evaluation together.

    Of runs that failed one of them in at least half of their seeds: a single seed of many is said,
    and decides nothing.
    """
    of_each: dict[tuple[str, str], list[FailedCheck]] = {}
    for each in failed:
        if each.accuses == accuses:
            of_each.setdefault((each.evaluation, each.run), []).append(each)
    return [
        some
        for some in of_each.values()
        if 2 * len({seed for each in some for seed in each.seeds}) >= some[0].checked
    ]


def told_check(failed: FailedCheck) -> str:
    """Return a failed check in words, with its evidence."""
    noun = "seed" if len(failed.seeds) == 1 else "seeds"
    seeds = ", ".join(map(str, failed.seeds))
    return (
        f"check '{failed.name}' of {failed.evaluation} failed ({noun} {seeds}): {failed.evidence}"
    )


def not_finished(some: Sequence[FailedCheck]) -> str:
    """Return what must be said of robustness whose attack failed a check, one clause."""
    told = "; ".join(
        f"check '{each.name}' of {each.evaluation} failed in {len(each.seeds)} of {each.checked} "
        f"{'seed' if each.checked == 1 else 'seeds'}"
        for each in some
    )
    return (
        f"the attack on {some[0].run} had not found all that it can ({told}); "
        "a better one may take more away"
    )


def _outcomes(
    evaluation: str, run: str, seeds: Sequence[int], masking: Masking
) -> dict[int, Checks]:
    of_run = masking.get(evaluation, {}).get(run, {})
    return {int(s): checks for s, checks in of_run.items() if checks and int(s) in seeds}
