"""Robustness that may not be there: claims on the strongest attack, and masked gradients."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from diascope.studies.panel import Tables
from diascope.studies.quantities import ATTACKED, STRONGEST, Atom

Checks = Sequence[Mapping[str, Any]]  # each with "name", "verdict", "evidence"
Masking = Mapping[str, Mapping[str, Mapping[Any, Checks | None]]]  # evaluation -> run -> seed
# Checks of the attack, or of how a figure is told. A claim has its answer to a weak attack in its
# decision on the strongest; the report shows these checks as all others.
NOT_OF_GRADIENTS = ("plateau", "returned", "losses", "contract", "reported")


@dataclass(frozen=True)
class Masked:
    """What the checks found amiss with the gradients of a run in one evaluation.

    failures: the checks that failed, each with the seeds and the evidence of the first of them.
    decides: whether some check failed in at least half of the run's seeds. A single seed of many
    is said, and decides nothing.
    """

    run: str
    failures: tuple[str, ...]
    decides: bool


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


def masked(
    pairs: Iterable[tuple[str, str]], seeds: Sequence[int], masking: Masking
) -> list[Masked]:
    """Return the runs whose gradients failed a check, of pairs (evaluation, run)."""
    found = []
    for evaluation, run in dict.fromkeys(pairs):
        of_run = masking.get(evaluation, {}).get(run, {})
        checked = {int(s): checks for s, checks in of_run.items() if checks and int(s) in seeds}
        evidence: dict[str, dict[int, str]] = {}
        for seed, checks in sorted(checked.items()):
            for check in checks:
                if check["verdict"] == "failed" and check["name"] not in NOT_OF_GRADIENTS:
                    evidence.setdefault(check["name"], {})[seed] = str(check["evidence"])
        failing = {seed for by_seed in evidence.values() for seed in by_seed}
        if failing:
            told = tuple(_told(evaluation, *each) for each in evidence.items())
            found.append(Masked(run, told, 2 * len(failing) >= len(checked)))
    return found


def _told(evaluation: str, name: str, by_seed: Mapping[int, str]) -> str:
    noun = "seed" if len(by_seed) == 1 else "seeds"
    seeds = ", ".join(str(seed) for seed in by_seed)
    return f"check '{name}' of {evaluation} failed ({noun} {seeds}): {next(iter(by_seed.values()))}"
