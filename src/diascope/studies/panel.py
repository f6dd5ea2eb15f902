"""The images of one test: the tables of some atoms side by side, and their means over resamples.

The images are those that every table has, in the order of their ids. An image counts in a seed
where every atom is defined for it, so that atoms are compared on the same images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from diascope.errors import nearest
from diascope.evaluation.resampling import Floats, Ints, draw_groups, group_codes
from diascope.evaluation.scores import balanced_accuracy, macro_auroc
from diascope.evaluation.statistics import Statistic
from diascope.studies.quantities import Atom

Tables = Mapping[str, Mapping[str, Mapping[int, pd.DataFrame]]]  # evaluation -> run -> seed
Bools = npt.NDArray[np.bool_]


class Missing(Exception):
    """What a claim needs and the tables do not have: one sentence."""


class Undefined(Missing):
    """What was measured and has no value."""


@dataclass
class Panel:
    """The images of one test: codes (N,) of their groups; values and masks (S, N) by atom."""

    atoms: list[Atom]
    codes: Ints
    count: int
    used: Bools  # (S, N) where every atom is defined
    values: dict[Atom, Floats]  # (S, N), of an AUROC (S, N, K)
    masks: dict[Atom, Bools]
    labels: dict[Atom, Ints]  # (N,), of those that need them
    most: int  # images of the largest table
    shared: int  # images that all tables have

    @classmethod
    def of(cls, atoms: list[Atom], tables: Tables, seeds: Sequence[int]) -> Panel:
        """Return the panel of atoms on one test; raises `Missing`, or `Undefined` for no value."""
        names = dict.fromkeys((atom.evaluation, atom.run) for atom in atoms)
        frames = {name: [tables[name[0]][name[1]][s] for s in seeds] for name in names}
        rows, most = _aligned(frames)
        read = {name: _Rows(name, frames[name], rows[name]) for name in names}
        one = next(iter(read.values()))
        values = {atom: _read(atom, read[atom.evaluation, atom.run]) for atom in atoms}
        labels = {}
        for atom in atoms:
            if atom.statistic != "mean":
                labels[atom] = _labels(atom, read[atom.evaluation, atom.run])
        finite = [~np.isnan(v) if v.ndim == 2 else ~np.isnan(v).any(2) for v in values.values()]
        used = np.logical_and.reduce(finite)
        right = used
        if any(atom.where for atom in atoms):
            right = used & np.logical_and.reduce([r.numbers("correct") == 1 for r in read.values()])
        masks = {atom: right if atom.where else used for atom in atoms}
        for atom, mask in masks.items():
            for s, each in zip(seeds, mask, strict=True):
                if not each.any():
                    raise Undefined(f"'{atom}' has no image with a value at seed {s}")
        there = used.any(0)
        codes, count = group_codes(one.column("group")[there])
        return cls(
            atoms,
            codes,
            count,
            used[:, there],
            {atom: v[:, there] for atom, v in values.items()},
            {atom: m[:, there] for atom, m in masks.items()},
            {atom: label[there] for atom, label in labels.items()},
            most,
            len(there),
        )

    @cached_property
    def counted(self) -> Bools:
        """Where some atom is defined and its condition holds, (S, N)."""
        return np.asarray(np.logical_or.reduce([self.masks[atom] for atom in self.atoms]))

    @property
    def counted_groups(self) -> int:
        """How many groups these images are of."""
        return len(np.unique(self.codes[self.counted.any(0)]))

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

    def counts(self, atom: Atom) -> tuple[int, int, int, float]:
        """Return an atom's images, its groups, those of the class that has the fewest, and `alike`.

        That is how many groups count where all are alike. A mean over K classes, each of n groups
        or more, moves no further than one of K n groups: a share of one class counts a K-th, and
        1 - tail^(1/n) <= K (1 - tail^(1/Kn)). An AUROC moves by a class's positives and, as much
        again at most, by where they are the negatives of others.
        """
        there = self.masks[atom].any(0)
        codes = self.codes[there]
        groups = len(np.unique(codes))
        if atom.statistic == "mean":
            return int(there.sum()), groups, groups, groups
        labels = self.labels[atom][there]
        of_class = [len(np.unique(codes[labels == k])) for k in np.unique(labels)]
        counting = len(of_class) / (2 if atom.statistic == "auroc" else 1)
        return int(there.sum()), groups, min(of_class), min(of_class) * max(counting, 1.0)

    def resampled(self, replicates: int, seed: int) -> Floats:
        """Return every atom in every replicate and seed, (A, R, S)."""
        chunks = draw_groups(self.count, replicates, seed, width=len(self.codes))
        return np.concatenate([self.replicates(chunk) for chunk in chunks], axis=1)

    def replicates(self, weights: Floats) -> Floats:
        """Return every atom for weights (r, G) of the groups, (A, r, S)."""
        found = np.empty((len(self.atoms), len(weights), len(self.used)))
        means, sums, sizes = self._totals
        if means:
            with np.errstate(invalid="ignore"):
                ratios = (weights @ sums) / (weights @ sizes)  # (r, A S)
            found[means] = ratios.reshape(len(weights), len(means), -1).transpose(1, 0, 2)
        for a, atom in enumerate(self.atoms):
            if atom.statistic != "mean":
                for s in range(len(self.used)):
                    here = self.masks[atom][s]
                    found[a, :, s] = self._statistic(atom, s)(weights[:, self.codes[here]])
        return found

    @cached_property
    def _totals(self) -> tuple[list[int], Floats, Floats]:
        """The atoms that are means, their sums in each group, and how many images, (G, A S)."""
        places = [a for a, atom in enumerate(self.atoms) if atom.statistic == "mean"]
        if not places:
            return [], np.empty((self.count, 0)), np.empty((self.count, 0))
        masks = np.concatenate([self.masks[self.atoms[a]] for a in places])  # (A S, N)
        values = np.concatenate([self.values[self.atoms[a]] for a in places])
        sums, sizes = (self._by_group(v) for v in (np.where(masks, values, 0.0), masks * 1.0))
        return places, sums.T, sizes.T

    def _by_group(self, rows: Floats) -> Floats:
        """Return the sums (M, G) over groups of rows (M, N)."""
        order = np.argsort(self.codes, kind="stable")
        firsts = np.flatnonzero(np.diff(self.codes[order], prepend=-1))
        return np.asarray(np.add.reduceat(rows[:, order], firsts, axis=1))

    def _statistic(self, atom: Atom, s: int) -> Statistic:
        here = self.masks[atom][s]
        values, labels = self.values[atom][s][here], self.labels[atom][here]
        if atom.statistic == "auroc":
            return lambda w: macro_auroc(values, labels, w)
        k = int(self.labels[atom].max()) + 1
        return lambda w: balanced_accuracy(values, labels, k, w)


@dataclass(frozen=True)
class _Rows:
    """The tables of one evaluation and run, a seed each, and the rows (N,) to read of each."""

    name: tuple[str, str]
    frames: Sequence[pd.DataFrame]
    rows: Sequence[Ints]

    @property
    def where(self) -> str:
        return "/".join(self.name[::-1])

    def column(self, name: str) -> npt.NDArray[Any]:
        """Return a column (N,) of the first seed, as text."""
        return self.frames[0][name].to_numpy(object)[self.rows[0]]

    def numbers(self, name: str) -> Floats:
        """Return a column of numbers of every seed, (S, N)."""
        found = []
        for frame, rows in zip(self.frames, self.rows, strict=True):
            if name not in frame:
                known = nearest(name, map(str, frame.columns))
                raise Missing(f"the table of {self.where} has no column '{name}': {known}")
            try:
                found.append(frame[name].to_numpy(np.float64)[rows])
            except (TypeError, ValueError):
                raise Missing(f"column '{name}' of {self.where} does not hold numbers") from None
        return np.stack(found)


def _aligned(
    frames: Mapping[tuple[str, str], Sequence[pd.DataFrame]],
) -> tuple[dict[tuple[str, str], list[Ints]], int]:
    """Return the rows of the images that all tables have, by id, and the length of the longest."""
    ids = {name: [pd.Index(frame["id"]) for frame in of] for name, of in frames.items()}
    every = [(name, index) for name, of in ids.items() for index in of]
    for name, index in every:
        if index.has_duplicates:
            raise Missing(f"the table of {name[1]}/{name[0]} has an image twice")
    common = every[0][1]
    for _, index in every[1:]:
        common = common if common.equals(index) else common.intersection(index)
    if not len(common):
        raise Missing("its tables have no image in common")
    common = common.sort_values()
    rows = {
        name: [np.asarray(index.get_indexer(common), np.int64) for index in of]
        for name, of in ids.items()
    }
    return rows, max(len(index) for _, index in every)


def _read(atom: Atom, rows: _Rows) -> Floats:
    """Return an atom's values (S, N), of an AUROC the probabilities (S, N, K)."""
    if atom.statistic == "auroc":
        return np.stack([rows.numbers(f"prob_{each}") for each in _classes(rows)], axis=2)
    values = rows.numbers(atom.column)
    if np.isinf(values).any():
        raise Undefined(f"'{atom}' is infinite for some images, and has no mean")
    return values


def _classes(rows: _Rows) -> list[str]:
    columns = [str(name) for name in rows.frames[0].columns]
    found = [name.removeprefix("prob_") for name in columns if name.startswith("prob_")]
    if not found:
        raise Missing(f"the table of {rows.where} has no columns prob_<class>")
    return found


def _labels(atom: Atom, rows: _Rows) -> Ints:
    """Return the labels (N,) as numbers, of an AUROC in the order of the probabilities."""
    label = [str(each) for each in rows.column("label")]
    if atom.statistic != "auroc":
        return group_codes(label)[0]
    known = {each: k for k, each in enumerate(_classes(rows))}
    if strange := set(label) - set(known):
        raise Missing(
            f"the table of {rows.where} has the label '{min(strange)}' and no prob_ of it"
        )
    return np.array([known[each] for each in label], np.int64)
