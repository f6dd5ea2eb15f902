"""The values of an attribute of each image: what accuracy is told apart by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.data import Dataset
from diascope.errors import UserError, nearest

FEW = 10  # images; values with fewer are pooled
UNKNOWN = "unknown"
_DISTINCT = 10  # more different numbers than these are put into ranges


@dataclass(frozen=True)
class Part:
    """The images (N,) bool that share a value of an attribute, and what is to be said of it."""

    attribute: str
    value: str
    rows: NDArray[np.bool_]
    note: str = ""


def check_attributes(dataset: Dataset, attributes: Sequence[str]) -> None:
    """Raise `UserError` where the table of the data has no column of such a name."""
    for name in attributes:
        if name not in dataset.table:
            raise UserError(
                f"{dataset.name}: no column '{name}' by which to tell accuracy apart: "
                f"{nearest(name, map(str, dataset.table.columns))}"
            )


def parts_of(dataset: Dataset, attributes: Sequence[str]) -> list[Part]:
    """Return the parts by class and by each attribute; none of an attribute with one value.

    Numbers are put into tens of years or, where they are no ages, into quarters of the images.
    Values of fewer than `FEW` images are pooled; classes never are, but a note says so.
    """
    found = _by_value("class", dataset.table.label, pool=False)
    for name in dict.fromkeys(attributes):
        if name not in ("class", "label") and name in dataset.table:
            found += _by_value(name, _ranges(name, dataset.table[name]), pool=True)
    return found


def _by_value(attribute: str, column: pd.Series[str], *, pool: bool) -> list[Part]:
    values = column.astype(str).to_numpy()
    names, counts = np.unique(values, return_counts=True)
    if len(names) < 2:
        return []
    small = [str(n) for n, c in zip(names, counts, strict=True) if c < FEW]
    pooled = pool and len(small) > 1
    found = [
        Part(attribute, str(name), values == name, _few(int(count)))
        for name, count in zip(names, counts, strict=True)
        if not (pooled and str(name) in small)
    ]
    if pooled:
        rows = np.isin(values, small)
        note = f"pooled, of fewer than {FEW} images each: {', '.join(small[:8])}"
        note += ", ..." if len(small) > 8 else ""
        found.append(Part(attribute, f"{len(small)} others", rows, note))
    return found if len(found) > 1 else []


def _few(count: int) -> str:
    return f"fewer than {FEW} images" if count < FEW else ""


def _ranges(name: str, column: pd.Series[str]) -> pd.Series[str]:
    """Return a column with its numbers in ranges; what is empty is called unknown."""
    text = column.astype(str).str.strip()
    text = text.where(~text.str.lower().isin(["", "nan", "none", "na"]), UNKNOWN)
    numbers = pd.to_numeric(text.where(text != UNKNOWN), errors="coerce")
    known = text != UNKNOWN
    if not known.any() or numbers[known].isna().any() or numbers.nunique() <= _DISTINCT:
        return text
    if "age" in name.lower().replace("-", "_").split("_") or numbers.between(0, 120).all():
        tens = (numbers // 10 * 10).fillna(-1).astype(int)
        ranges = tens.map(lambda n: f"{n:02d} to {n + 9:02d}")
    else:
        ranges = pd.qcut(numbers, 4, duplicates="drop").astype(str)
    return ranges.where(known, UNKNOWN)
