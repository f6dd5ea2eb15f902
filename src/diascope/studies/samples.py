"""What claims are decided on: the values of atoms over seeds, and bootstrap replicates of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from diascope.evaluation.resampling import REPLICATES, Floats, Ints
from diascope.randomness import derive
from diascope.studies.panel import Bools, Missing, Panel, Tables, Undefined
from diascope.studies.quantities import GIVEN, OF_ONE, Atom

FEW = 5  # with fewer seeds nothing is said of new ones


@dataclass(frozen=True)
class Sample:
    """A atoms over S seeds, and R bootstrap replicates of them.

    by_seed (A, S). drawn (A, R, S): whole groups are drawn, the same for all atoms on a test, each
    test by itself. seeds_drawn: whether the seeds count as drawn from all that there might be.
    stretch (A,): how many times further apart seeds are than their values tell; above 1 where a
    value speaks of other seeds as well. images, groups (A,): on which an atom is
    defined in any seed; images_by_seed (A, S): in each. proportion (A,): whether it lies in [0, 1]
    by its nature. fewest: the groups of the atom that has the fewest, of a statistic over classes
    those of the class that has; alike: as many as count where all are alike, see `Panel.counts`;
    the least of any atom. total_images, total_groups: on which any atom is defined, of all
    tests together; total_by_seed (S,): in each seed. examined: of all tests together, the images
    of which some were left out by a condition. notes: what the reader should know.
    """

    atoms: tuple[Atom, ...]
    seeds: tuple[int, ...]
    by_seed: Floats
    drawn: Floats
    stretch: Floats
    images: Ints
    groups: Ints
    images_by_seed: Ints
    proportion: Bools
    seeds_drawn: bool
    fewest: int
    alike: float
    total_images: int
    total_groups: int
    total_by_seed: Ints
    examined: int
    notes: tuple[str, ...] = ()


def sample(
    atoms: Sequence[Atom],
    tables: Tables,
    tests: Mapping[str, str],
    *,
    wanted: Sequence[int] = (),
    pairs: Collection[str] = (),
    rings: Collection[str] = (),
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Sample:
    """Return the atoms' values and their replicates.

    tests: the test of each evaluation. wanted: the seeds that the study has. pairs: the evaluations
    that look at a model beside the other seeds of its run; rings: those that look at one beside
    models of the next seed. Raises `Missing`.
    """
    seeds, notes = _common_seeds(atoms, tables, wanted)
    by_seed = np.empty((len(atoms), len(seeds)))
    drawn = np.empty((len(atoms), replicates, len(seeds)))
    images, groups = np.zeros(len(atoms), np.int64), np.zeros(len(atoms), np.int64)
    images_by_seed = np.zeros((len(atoms), len(seeds)), np.int64)
    proportion = np.zeros(len(atoms), np.bool_)
    panels: list[Panel] = []
    fewest: list[int] = []
    alike: list[float] = []
    for test in dict.fromkeys(tests[atom.evaluation] for atom in atoms):
        places = [a for a, atom in enumerate(atoms) if tests[atom.evaluation] == test]
        panel = Panel.of([atoms[a] for a in places], tables, seeds)
        notes += panel.notes(test)
        panels.append(panel)
        by_seed[places] = panel.replicates(np.ones((1, panel.count)))[:, 0]
        drawn[places] = panel.resampled(replicates, derive(seed, "groups", test))
        for a, atom in zip(places, panel.atoms, strict=True):
            images[a], groups[a], thinnest, counting = panel.counts(atom)
            images_by_seed[a] = panel.masks[atom].sum(1)
            fewest.append(thinnest)
            alike.append(counting)
            proportion[a] = panel.is_proportion(atom)
    for a, s in np.argwhere(np.isnan(by_seed)):
        raise Undefined(f"'{atoms[a]}' has no value at seed {seeds[s]}: a class has no image")
    together = max(len(seeds), len(wanted))
    return Sample(
        atoms=tuple(atoms),
        seeds=tuple(seeds),
        by_seed=by_seed,
        drawn=drawn,
        stretch=np.array([_stretch(atom, pairs, rings, together) for atom in atoms]),
        images=images,
        groups=groups,
        images_by_seed=images_by_seed,
        proportion=proportion,
        seeds_drawn=len(seeds) >= FEW,
        fewest=min(fewest),
        alike=min(alike),
        total_images=sum(int(panel.counted.any(0).sum()) for panel in panels),
        total_groups=sum(panel.counted_groups for panel in panels),
        total_by_seed=np.sum([panel.counted.sum(1) for panel in panels], axis=0),
        examined=sum(int(panel.used.any(0).sum()) for panel in panels),
        notes=tuple(notes),
    )


def _stretch(atom: Atom, pairs: Collection[str], rings: Collection[str], seeds: int) -> float:
    """Return how many times further apart than their values seeds are that stand in several.

    In an average over pairs with the other seeds every pair stands in the values of two, so that
    these are too alike. The mean of the jackknife's pseudo-values is the same, and their spread
    that of a mean over pairs (Arvesen 1969). Where a value is of a seed and of the next one, the
    last one's of the first, each seed stands in two values; the variance of their mean is at most
    2 (S - 1) / (S - 2) times what their spread tells, where both seeds weigh the same in them.
    """
    own = any(fnmatchcase(atom.column, pattern) for pattern in GIVEN)
    if seeds < 3 or own or atom.column.endswith(OF_ONE):
        return 1.0
    if atom.evaluation in pairs:
        return 2 * (seeds - 1) / (seeds - 2)
    return float(np.sqrt(2 * (seeds - 1) / (seeds - 2))) if atom.evaluation in rings else 1.0


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
