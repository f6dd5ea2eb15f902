"""What claims are decided on: the values of atoms over seeds, and bootstrap replicates of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from diascope.evaluation.resampling import REPLICATES, Floats, Ints
from diascope.randomness import derive
from diascope.studies.panel import Bools, Missing, Panel, Tables, Undefined
from diascope.studies.quantities import Atom

FEW = 5  # with fewer seeds nothing is said of new ones


@dataclass(frozen=True)
class Sample:
    """A atoms over S seeds, and R bootstrap replicates of them.

    by_seed (A, S). drawn (A, R, S): whole groups are drawn, the same for all atoms on a test, each
    test by itself. weights (R, S): of the seeds in each replicate; with `seeds_drawn` they are
    drawn as well, the same for all atoms. images, groups (A,): on which an atom is defined in any
    seed. proportion (A,): whether it lies in [0, 1] by its nature. fewest: the groups of the atom
    that has the fewest, of a statistic over classes those of the class that has. total_images,
    total_groups: of all tests together. notes: what the reader should know.
    """

    atoms: tuple[Atom, ...]
    seeds: tuple[int, ...]
    by_seed: Floats
    drawn: Floats
    weights: Floats
    images: Ints
    groups: Ints
    proportion: Bools
    seeds_drawn: bool
    fewest: int
    total_images: int
    total_groups: int
    notes: tuple[str, ...] = ()


def sample(
    atoms: Sequence[Atom],
    tables: Tables,
    tests: Mapping[str, str],
    *,
    wanted: Sequence[int] = (),
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Sample:
    """Return the atoms' values and their replicates.

    tests: the test of each evaluation. wanted: the seeds that the study has. Raises `Missing`.
    """
    seeds, notes = _common_seeds(atoms, tables, wanted)
    by_seed = np.empty((len(atoms), len(seeds)))
    drawn = np.empty((len(atoms), replicates, len(seeds)))
    images, groups = np.zeros(len(atoms), np.int64), np.zeros(len(atoms), np.int64)
    proportion = np.zeros(len(atoms), np.bool_)
    counts: list[tuple[int, int]] = []
    fewest: list[int] = []
    for test in dict.fromkeys(tests[atom.evaluation] for atom in atoms):
        places = [a for a, atom in enumerate(atoms) if tests[atom.evaluation] == test]
        panel = Panel.of([atoms[a] for a in places], tables, seeds)
        notes += panel.notes(test)
        counts.append((int(panel.used.any(0).sum()), panel.count))
        by_seed[places] = panel.replicates(np.ones((1, panel.count)))[:, 0]
        drawn[places] = panel.resampled(replicates, derive(seed, "groups", test))
        for a, atom in zip(places, panel.atoms, strict=True):
            images[a], groups[a], thinnest = panel.counts(atom)
            fewest.append(thinnest)
            proportion[a] = panel.is_proportion(atom)
    for a, s in np.argwhere(np.isnan(by_seed)):
        raise Undefined(f"'{atoms[a]}' has no value at seed {seeds[s]}: a class has no image")
    return Sample(
        atoms=tuple(atoms),
        seeds=tuple(seeds),
        by_seed=by_seed,
        drawn=drawn,
        weights=_seed_weights(len(seeds), replicates, seed),
        images=images,
        groups=groups,
        proportion=proportion,
        seeds_drawn=len(seeds) >= FEW,
        fewest=min(fewest),
        total_images=sum(n for n, _ in counts),
        total_groups=sum(count for _, count in counts),
        notes=tuple(notes),
    )


def _seed_weights(count: int, replicates: int, seed: int) -> Floats:
    """Return the weights of the seeds in each replicate, (R, S).

    Of S seeds S - 1 are drawn, so that the spread of their mean is right for few of them (Rao and
    Wu 1988). Fewer than `FEW` are averaged.
    """
    if count < FEW:
        return np.full((replicates, count), 1 / count)
    rng = np.random.default_rng(derive(seed, "seeds"))
    return rng.multinomial(count - 1, np.full(count, 1 / count), replicates) / (count - 1)


def _common_seeds(
    atoms: Sequence[Atom], tables: Tables, wanted: Sequence[int]
) -> tuple[list[int], list[str]]:
    """Return the seeds of which every table is there, and what is to be said of the others."""
    common: set[int] | None = None
    lacking: dict[int, str] = {}
    for atom in atoms:
        there = tables.get(atom.evaluation, {}).get(atom.run, {})
        if not there:
            raise Missing(f"there is no table of {atom.run}/{atom.evaluation}")
        common = set(there) if common is None else common & set(there)
        lacking |= {s: f"{atom.run}/{atom.evaluation}" for s in wanted if s not in there}
    if not common:
        raise Missing("no seed has every table: " + _told(lacking))
    return sorted(common), [f"without {_told(lacking)}"] if lacking else []


def _told(lacking: Mapping[int, str]) -> str:
    return ", ".join(f"seed {seed} ({name} is not there)" for seed, name in sorted(lacking.items()))
