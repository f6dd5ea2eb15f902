"""The numbers behind a study's figures, computed from the tables in the store."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq

from diascope.evaluation.statistics import bootstrap_mean
from diascope.studies.results import Bounds, QuantityResult, StudyResults
from diascope.studies.study import Study

ATTACKED = re.compile(r"^(?P<attack>.+)@(?P<eps>[0-9.eE+-]+)$")
PLAIN = re.compile(r"^(?P<run>[^/]+)/(?P<evaluation>[^/.]+)\.(?P<column>.+)$")


class Values:
    """Quantities of a study, each with its interval over images and every seed's value."""

    def __init__(self, results: StudyResults, store: Path) -> None:
        self.results, self.store = results, store
        self._table = cache(self._read)
        self._found: dict[str, QuantityResult | None] = {}

    def of(self, quantity: Any) -> QuantityResult | None:
        """Return a quantity; None where it was not measured."""
        name = repr(quantity)
        if name not in self._found:
            self._found[name] = self._compute(quantity)
        return self._found[name]

    def attacks(self, evaluation: str) -> dict[str, list[tuple[float, str]]]:
        """Return of each attack of an evaluation its epsilons, rising, and their columns."""
        found: dict[str, dict[float, str]] = {}
        for seeds in self.results.tables.get(evaluation, {}).values():
            for key in seeds.values():
                file = self._file(key)
                names = pq.read_schema(file).names if file.is_file() else []
                for match in filter(None, map(ATTACKED.match, names)):
                    found.setdefault(match["attack"], {})[float(match["eps"])] = match[0]
        return {attack: sorted(columns.items()) for attack, columns in found.items()}

    @staticmethod
    def check(quantity: Any, study: Study, where: str) -> None:
        """Raise `UserError` where a quantity names what the study does not have."""

    def _compute(self, quantity: Any) -> QuantityResult | None:
        match = PLAIN.match(quantity) if isinstance(quantity, str) else None
        if match is None:
            return None
        seeds = self.results.tables.get(match["evaluation"], {}).get(match["run"], {})
        tables = {int(seed): self._table(key) for seed, key in seeds.items()}
        columns = {
            seed: table[match["column"]].astype(float)
            for seed, table in tables.items()
            if table is not None and match["column"] in table
        }
        if not columns:
            return None
        first = tables[next(iter(columns))]
        assert first is not None
        each = {seed: float(np.nanmean(column)) for seed, column in columns.items()}
        mean = np.mean([column.to_numpy() for column in columns.values()], axis=0)
        found = bootstrap_mean(mean, first["group"], proportion=True)
        low, high = (found.low, found.high) if found.defined else (None, None)
        bounds = Bounds(found.value, low, high)
        return QuantityResult(str(quantity), bounds, each, found.images, found.groups)

    def _read(self, key: str) -> pd.DataFrame | None:
        file = self._file(key)
        return pd.read_parquet(file) if file.is_file() else None

    def _file(self, key: str) -> Path:
        return self.store / "tables" / f"{key}.parquet"


def plain(value: Any) -> Any:
    """Return plain values for JSON: numbers that are not finite become None."""
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool | None) else str(value)
