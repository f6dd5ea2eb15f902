"""The numbers behind a study's figures, computed from the tables in the store as claims are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from diascope.evaluation.resampling import Floats
from diascope.studies.inference import Affine, Spread
from diascope.studies.panel import Missing
from diascope.studies.quantities import ATTACKED, Atom, Quantity, atoms, compute, parse
from diascope.studies.results import Bounds, QuantityResult, StudyResults
from diascope.studies.samples import sample
from diascope.studies.store import Store

TAIL = 0.025
REPLICATES = 1000


class Values:
    """Quantities of a study, each with its interval over images and every seed's value.

    From five seeds on the interval speaks of new seeds, too (`diascope.studies.samples`).
    """

    def __init__(self, results: StudyResults, store: Path) -> None:
        self.results = results
        self.tables = _Tables(results, Store(store))
        evaluations = results.study.get("evaluations") or {}
        self.tests = {name: str(spec["on"]) for name, spec in evaluations.items()}
        self.pairs = [name for name, spec in evaluations.items() if spec.get("beside") == "seeds"]
        self._found: dict[tuple[str, ...], list[QuantityResult | None]] = {}

    def of(self, quantity: object) -> QuantityResult | None:
        """Return a quantity; None where it was not measured, or has no value."""
        return self.together([quantity])[0]

    def across(self, quantities: Sequence[object]) -> list[QuantityResult | None]:
        """Return quantities that are compared: those with a condition, on the same images."""
        read = [parse(quantity, "figure") for quantity in quantities]
        if any(atom.where for each in read for atom in atoms(each)):
            return self.together(quantities)
        return [self.of(quantity) for quantity in quantities]

    def together(self, quantities: Sequence[object]) -> list[QuantityResult | None]:
        """Return quantities on the images for which all of those that were measured are defined."""
        read = [parse(quantity, "figure") for quantity in quantities]
        name = tuple(str(each) for each in read)
        if name not in self._found:
            self._found[name] = self._together(read)
        return list(self._found[name])

    def attacks(self, evaluation: str) -> dict[str, list[tuple[float, str]]]:
        """Return of each attack of an evaluation its epsilons, rising, and their columns."""
        found: dict[str, dict[float, str]] = {}
        for by_seed in self.tables.get(evaluation, {}).values():
            for table in by_seed.values():
                for match in filter(None, map(ATTACKED.fullmatch, map(str, table.columns))):
                    if (eps := _number(match["eps"])) is not None:
                        found.setdefault(match["attack"], {})[eps] = match[0]
        return {attack: sorted(columns.items()) for attack, columns in found.items()}

    def _together(self, read: Sequence[Quantity]) -> list[QuantityResult | None]:
        there = [each for each in read if all(map(self._there, atoms(each)))]
        own = list(dict.fromkeys(atom for each in there for atom in atoms(each)))
        found = self._measured(there, own)
        if found is None and len(read) > 1:
            return [self._together([each])[0] for each in read]
        places = {str(each): k for k, each in enumerate(there)}
        return [found[places[str(e)]] if found and str(e) in places else None for e in read]

    def _measured(self, there: Sequence[Quantity], own: list[Atom]) -> list[QuantityResult] | None:
        if not own:
            return [_given(each) for each in there]
        seeds = [int(seed) for seed in self.results.study["seeds"]]
        try:
            some = sample(
                own,
                self.tables,
                self.tests,
                wanted=seeds,
                pairs=self.pairs,
                replicates=REPLICATES,
            )
        except Missing:
            return None

        def values(of_atoms: Floats) -> Floats:
            place = {atom: a for a, atom in enumerate(own)}
            shape = of_atoms.shape[1:]
            return np.stack(
                [
                    compute(q, lambda atom: of_atoms[place[atom]], lambda v: np.full(shape, v))
                    for q in there
                ]
            )

        spread = Spread.of(Affine.of(values, len(own)), some)
        low, high = spread.limits(TAIL, TAIL)
        by_seed: Floats = values(some.by_seed)
        found = []
        for q, quantity in enumerate(there):
            known = bool(np.isfinite(low[q]) and np.isfinite(high[q]))
            limits = (float(low[q]), float(high[q])) if known else (None, None)
            each = dict(zip(some.seeds, map(float, by_seed[q]), strict=True))
            read = [own.index(atom) for atom in atoms(quantity)]
            images, groups = (
                int(count[read].min()) if read else 0 for count in (some.images, some.groups)
            )
            bounds = Bounds(float(spread.value[q]), *limits)
            found.append(QuantityResult(str(quantity), bounds, each, images, groups))
        return found

    def _there(self, atom: Atom) -> bool:
        """Tell whether some seed has what an atom reads."""
        by_seed: Mapping[int, pd.DataFrame]
        by_seed = self.tables.get(atom.evaluation, {}).get(atom.run, {})
        return any(not atom.column or atom.column in table for table in by_seed.values())


class _Seeds(Mapping[int, pd.DataFrame]):
    """The tables of one run in one evaluation, read when they are asked for."""

    def __init__(self, keys: Mapping[str, str], store: Store) -> None:
        self._keys, self._store = {int(seed): key for seed, key in keys.items()}, store
        self._read: dict[int, pd.DataFrame] = {}

    def __getitem__(self, seed: int) -> pd.DataFrame:
        if seed not in self._read:
            self._read[seed] = self._store.table(self._keys[seed])
        return self._read[seed]

    def __iter__(self) -> Iterator[int]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)


class _Tables(dict[str, dict[str, _Seeds]]):
    """Every table of a study by evaluation, run and seed."""

    def __init__(self, results: StudyResults, store: Store) -> None:
        super().__init__(
            {
                evaluation: {run: _Seeds(keys, store) for run, keys in by_run.items()}
                for evaluation, by_run in results.tables.items()
            }
        )


def _given(quantity: Quantity) -> QuantityResult:
    """Return a quantity that is made of numbers alone."""
    value = compute(quantity, lambda atom: math.nan, float)
    return QuantityResult(str(quantity), Bounds(value, None, None), {}, 0, 0)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
