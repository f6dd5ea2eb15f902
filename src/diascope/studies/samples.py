"""What claims are decided on: the tables of their atoms side by side, and resamples of them.

On each test the images are those that every table of the claim has, in the order of their ids. An
image counts in a seed where every atom on its test is defined for it, so that atoms are compared
on the same images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from diascope.errors import nearest
from diascope.evaluation.resampling import REPLICATES, Floats, Ints, draw_groups, group_codes
from diascope.evaluation.scores import balanced_accuracy, macro_auroc
from diascope.evaluation.statistics import Statistic
from diascope.randomness import derive
from diascope.studies.quantities import Atom

FEW = 5  # with fewer seeds nothing is said of new ones
Tables = Mapping[str, Mapping[str, Mapping[int, pd.DataFrame]]]  # evaluation -> run -> seed
Bools = npt.NDArray[np.bool_]


class Missing(Exception):
    """What a claim needs and the tables do not have: one sentence."""


class Undefined(Missing):
    """What was measured and has no value."""


@dataclass(frozen=True)
class Sample:
    """A atoms over S seeds, and R bootstrap replicates of their means over seeds.

    by_seed (A, S); drawn (A, R): whole groups are drawn, the same for all atoms on a test, each
    test by itself; and with `seeds_drawn`, seeds, the same for all atoms. images, groups (A,):
    on which an atom is defined in any seed. proportion (A,): whether it lies in [0, 1] by its
    nature. fewest: the number of groups of the test that has the fewest. total_images,
    total_groups: of all tests together. notes: what the reader should know.
    """

    atoms: tuple[Atom, ...]
    seeds: tuple[int, ...]
    by_seed: Floats
    drawn: Floats
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
    counts = []
    for test in dict.fromkeys(tests[atom.evaluation] for atom in atoms):
        places = [a for a, atom in enumerate(atoms) if tests[atom.evaluation] == test]
        panel = _Panel.of([atoms[a] for a in places], tables, seeds)
        notes += panel.notes(test)
        counts.append((int(panel.used.any(0).sum()), panel.count))
        by_seed[places] = panel.replicates(np.ones((1, panel.count)))[:, 0]
        drawn[places] = panel.resampled(replicates, derive(seed, "groups", test))
        for a, atom in zip(places, panel.atoms, strict=True):
            there = panel.masks[atom].any(0)
            images[a], groups[a] = there.sum(), len(np.unique(panel.codes[there]))
            proportion[a] = panel.is_proportion(atom)
    for a, s in np.argwhere(np.isnan(by_seed)):
        raise Undefined(f"'{atoms[a]}' has no value at seed {seeds[s]}: a class has no image")
    return Sample(
        atoms=tuple(atoms),
        seeds=tuple(seeds),
        by_seed=by_seed,
        drawn=np.einsum("ars,rs->ar", drawn, _seed_weights(len(seeds), replicates, seed)),
        images=images,
        groups=groups,
        proportion=proportion,
        seeds_drawn=len(seeds) >= FEW,
        fewest=min(count for _, count in counts),
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


@dataclass
class _Panel:
    """The images of one test: codes (N,) of their groups; values and masks (S, N) by atom."""

    atoms: list[Atom]
    codes: Ints
    count: int
    used: Bools  # (S, N) where every atom is defined
    values: dict[Atom, Floats]  # (S, N), of an AUROC (S, N, K)
    masks: dict[Atom, Bools]
    labels: dict[Atom, Ints]  # (N,)
    most: int  # images of the largest table
    shared: int = field(default=0)

    @classmethod
    def of(cls, atoms: list[Atom], tables: Tables, seeds: Sequence[int]) -> _Panel:
        names = dict.fromkeys((atom.evaluation, atom.run) for atom in atoms)
        frames = {
            name: [_by_id(tables[name[0]][name[1]][s], name) for s in seeds] for name in names
        }
        every = [frame for of_seeds in frames.values() for frame in of_seeds]
        ids = every[0].index
        for frame in every[1:]:
            ids = ids if ids.equals(frame.index) else ids.intersection(frame.index)
        if not len(ids):
            raise Missing("its tables have no image in common")
        ids = ids.sort_values()
        most = max(len(frame) for frame in every)
        frames = {name: [f.loc[ids] for f in of_seeds] for name, of_seeds in frames.items()}
        values, labels = {}, {}
        for atom in atoms:
            own = frames[atom.evaluation, atom.run]
            values[atom], labels[atom] = _read(atom, own)
        right = np.ones((len(seeds), len(ids)), np.bool_)
        if any(atom.where for atom in atoms):
            for name, own in frames.items():
                right &= np.stack([_numbers(f, "correct", "/".join(name[::-1])) for f in own]) == 1
        finite = [~np.isnan(v) if v.ndim == 2 else ~np.isnan(v).any(2) for v in values.values()]
        used = np.logical_and.reduce(finite)
        masks = {atom: used & right if atom.where else used for atom in atoms}
        for atom, mask in masks.items():
            for s, each in zip(seeds, mask, strict=True):
                if not each.any():
                    raise Undefined(f"'{atom}' has no image with a value at seed {s}")
        there = used.any(0)
        groups = next(iter(frames.values()))[0]["group"][there]
        codes, count = group_codes(groups)
        return cls(
            atoms, codes, count, used[:, there],
            {atom: v[:, there] for atom, v in values.items()},
            {atom: m[:, there] for atom, m in masks.items()},
            {atom: label[there] for atom, label in labels.items()},
            most, len(ids),
        )  # fmt: skip

    def notes(self, test: str) -> list[str]:
        """Return what the reader should know of the images."""
        if self.shared == self.most:
            return []
        return [f"on the {self.shared} images of {test} that every table has (of {self.most})"]

    def is_proportion(self, atom: Atom) -> bool:
        """Tell whether the atom lies in [0, 1] by its nature: a share, or an AUROC."""
        if atom.statistic == "auroc":
            return True
        values = self.values[atom][self.masks[atom]]
        return bool(np.isin(values, (0.0, 1.0)).all())

    def resampled(self, replicates: int, seed: int) -> Floats:
        """Return every atom in every replicate and seed, (A, R, S)."""
        chunks = draw_groups(self.count, replicates, seed, width=len(self.codes))
        return np.concatenate([self.replicates(chunk) for chunk in chunks], axis=1)

    def replicates(self, weights: Floats) -> Floats:
        """Return every atom for weights (r, G) of the groups, (A, r, S)."""
        found = np.empty((len(self.atoms), *weights.shape[:1], len(self.used)))
        means = [a for a, atom in enumerate(self.atoms) if atom.statistic == "mean"]
        if means:
            found[means] = self._means([self.atoms[a] for a in means], weights)
        for a, atom in enumerate(self.atoms):
            if atom.statistic != "mean":
                for s in range(len(self.used)):
                    here = self.masks[atom][s]
                    found[a, :, s] = self._statistic(atom, s)(weights[:, self.codes[here]])
        return found

    def _means(self, atoms: list[Atom], weights: Floats) -> Floats:
        """Return the means, (A, r, S): ratios of sums over groups."""
        masks = np.stack([self.masks[atom] for atom in atoms])  # (A, S, N)
        values = np.where(masks, np.stack([self.values[atom] for atom in atoms]), 0.0)
        sums = self._by_group(values.reshape(-1, values.shape[-1]))
        sizes = self._by_group(masks.reshape(-1, values.shape[-1]).astype(np.float64))
        with np.errstate(invalid="ignore"):
            means = (weights @ sums.T) / (weights @ sizes.T)  # (r, A S)
        return means.reshape(len(weights), *masks.shape[:2]).transpose(1, 0, 2)

    def _by_group(self, rows: Floats) -> Floats:
        return np.stack([np.bincount(self.codes, row, self.count) for row in rows])

    def _statistic(self, atom: Atom, s: int) -> Statistic:
        here = self.masks[atom][s]
        values, labels = self.values[atom][s][here], self.labels[atom][here]
        if atom.statistic == "auroc":
            return lambda w: macro_auroc(values, labels, w)
        k = int(self.labels[atom].max()) + 1
        return lambda w: balanced_accuracy(values, labels, k, w)


def _by_id(table: pd.DataFrame, name: tuple[str, str]) -> pd.DataFrame:
    ids = pd.Index(table["id"].astype(str))
    if ids.has_duplicates:
        raise Missing(f"the table of {name[1]}/{name[0]} has an image twice")
    return table.set_index(ids)


def _read(atom: Atom, frames: Sequence[pd.DataFrame]) -> tuple[Floats, Ints]:
    """Return an atom's values (S, N), of an AUROC (S, N, K), and the labels (N,) as numbers."""
    name = f"{atom.run}/{atom.evaluation}"
    label = frames[0]["label"].astype(str)
    if atom.statistic != "auroc":
        values = np.stack([_numbers(frame, atom.column, name) for frame in frames])
        if np.isinf(values).any():
            raise Undefined(f"'{atom}' is infinite for some images, and has no mean")
        return values, group_codes(label)[0]
    columns = [c for c in frames[0].columns if str(c).startswith("prob_")]
    if not columns:
        raise Missing(f"the table of {name} has no columns prob_<class>")
    classes = [column.removeprefix("prob_") for column in columns]
    known = {each: k for k, each in enumerate(classes)}
    if not set(label) <= set(known):  # labels are numbers, in the order of the classes
        known = {str(k): k for k in range(len(classes))}
    if strange := set(label) - set(known):
        raise Missing(f"the table of {name} has the label '{min(strange)}' and no prob_ of it")
    values = np.stack([frame[columns].to_numpy(np.float64) for frame in frames])  # (S, N, K)
    return values, np.array([known[each] for each in label], np.int64)


def _numbers(frame: pd.DataFrame, column: str, name: str) -> Floats:
    if column not in frame:
        known = nearest(column, map(str, frame.columns))
        raise Missing(f"the table of {name} has no column '{column}': {known}")
    try:
        return frame[column].to_numpy(np.float64)
    except (TypeError, ValueError):
        raise Missing(f"column '{column}' of {name} does not hold numbers") from None
