"""Which images are shown as cases, and why: half of them by lot, half for what they tell."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations, cycle

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.audit.bench import by_lot
from diascope.data import Pixels

RULE = (
    "Half are drawn by lot: the images whose hashed id comes first, of each class by its share of "
    "the data, whatever any model says of them. The others are the most telling, by turns: the "
    "most confidently wrong, those that the smallest epsilon breaks (of equal ones the most "
    "confident), those whose map lies lowest against chance, and those of which the models say "
    "the most different things; each time of the class of which the fewest are shown. Each says "
    "why it was chosen."
)
LOT = "drawn by lot"

Floats = NDArray[np.float64]
Tables = Mapping[str, pd.DataFrame]


def choose(pixels: Pixels, count: int, seed: int) -> NDArray[np.int64]:
    """Return rows drawn by lot: by hashed id, each class by its share, ascending."""
    return np.sort(by_lot(pixels, seed)[:count])


def select(tables: Tables, pixels: Pixels, count: int, seed: int) -> list[tuple[int, str]]:
    """Return the rows of the cases with the reason of each, by `RULE`, ascending.

    Where too few images tell anything, more are drawn by lot.
    """
    labels, order = pixels.dataset.labels, by_lot(pixels, seed)
    count = min(count, len(order))
    chosen = dict.fromkeys(order[: -(-count // 2)].tolist(), LOT)
    telling = [(reason, score(tables)) for reason, score in CRITERIA if tables]
    silent = 0
    for reason, scores in cycle(telling):
        if len(chosen) == count or silent == len(telling):
            break
        row = _most(scores, labels, list(chosen))
        silent = silent + 1 if row is None else 0
        if row is not None:
            chosen[row] = reason(tables, row)
    for row in order.tolist():
        if len(chosen) == count:
            break
        chosen.setdefault(row, LOT)
    return sorted(chosen.items())


def _most(scores: Floats, labels: NDArray[np.int64], chosen: list[int]) -> int | None:
    """Return the row of the largest score, not chosen yet, of the class shown least.

    Scores (N,) are NaN for images that tell nothing; None where no other image does.
    """
    open_rows = np.isfinite(scores)
    open_rows[chosen] = False
    if not open_rows.any():
        return None
    shown = np.bincount(labels[chosen], minlength=int(labels.max()) + 1)
    rows = np.flatnonzero(open_rows)
    rows = rows[shown[labels[rows]] == shown[labels[rows]].min()]
    return int(rows[scores[rows].argmax()])


def probabilities(table: pd.DataFrame) -> Floats:
    """Return the probabilities of a table of predictions, (N, K)."""
    columns = [name for name in table.columns if str(name).startswith("prob_")]
    p: Floats = table[columns].to_numpy(dtype=np.float64)
    return p


def finite(table: pd.DataFrame) -> NDArray[np.bool_]:
    """Return for which images (N,) the model's outputs are finite."""
    return np.asarray(np.isfinite(probabilities(table)).all(1))


def confidence(table: pd.DataFrame) -> Floats:
    """Return the probability of each image's prediction, (N,)."""
    found: Floats = probabilities(table).max(1)
    return found


def column(table: pd.DataFrame, name: str) -> Floats:
    """Return a column as numbers, (N,); NaN where the table has none of that name."""
    if name not in table:
        return np.full(len(table), np.nan)
    return np.asarray(table[name], dtype=np.float64)


def _largest(tables: Tables, of: Callable[[pd.DataFrame], Floats]) -> Floats:
    found: Floats = np.fmax.reduce([of(table) for table in tables.values()])
    return found


def _which(tables: Tables, row: int, of: Callable[[pd.DataFrame], Floats]) -> str:
    """Return the name of the model to whose table an image owes its score."""
    values = {name: of(table)[row] for name, table in tables.items()}
    return max(values, key=lambda name: np.nan_to_num(values[name], nan=-np.inf))


def _wrong(table: pd.DataFrame) -> Floats:
    return np.where(table.correct.to_numpy(dtype=bool), np.nan, confidence(table))


def _wrong_reason(tables: Tables, row: int) -> str:
    name = _which(tables, row, _wrong)
    table = tables[name]
    return (
        f"confidently wrong: {name} says {table.prediction.iloc[row]} at "
        f"{confidence(table)[row]:.2f}"
    )


def _rank(values: Floats) -> Floats:
    """Return the place of each value among the distinct ones, (N,)."""
    place: Floats = np.unique(values, return_inverse=True)[1].astype(np.float64)
    return place


def _least_epsilon(tables: Tables) -> Floats:
    """Return scores by the smallest epsilon that breaks any model, confidence between equals."""
    minimal = [column(table, "minimal_epsilon") for table in tables.values()]
    least = np.fmin.reduce([np.where((m > 0) & (m < np.inf), m, np.nan) for m in minimal])
    sure = _largest(tables, confidence)
    scores: Floats = np.where(np.isfinite(least), sure - 2 * _rank(least), np.nan)
    return scores


def _fragile_reason(tables: Tables, row: int) -> str:
    broken = {n: column(t, "minimal_epsilon")[row] for n, t in tables.items()}
    broken = {n: eps for n, eps in broken.items() if 0 < eps < np.inf}
    name = min(broken, key=lambda n: broken[n])
    return f"smallest minimal epsilon: {name} broken at {broken[name]:.3g}"


def _astray(table: pd.DataFrame) -> Floats:
    chance = column(table, "average_precision_chance")
    return chance - column(table, "average_precision")


def _astray_reason(tables: Tables, row: int) -> str:
    name = _which(tables, row, _astray)
    value, chance = (
        column(tables[name], part)[row]
        for part in ("average_precision", "average_precision_chance")
    )
    told = f"average precision {value:.2f} of {name}, {chance:.2f} by chance"
    return f"map lowest against chance: {told}"


def _apart(tables: Tables) -> Floats:
    """Return the largest total variation distance between two models' probabilities, (N,)."""
    p = [probabilities(table) for table in tables.values()]
    if len(p) < 2:
        return np.full(len(p[0]), np.nan)
    scores: Floats = np.fmax.reduce([np.abs(a - b).sum(1) / 2 for a, b in combinations(p, 2)])
    return scores


def _apart_reason(tables: Tables, row: int) -> str:
    said = (f"{name} {table.prediction.iloc[row]}" for name, table in tables.items())
    return f"models disagree: {', '.join(said)}"


Reason = Callable[[Tables, int], str]
Score = Callable[[Tables], Floats]
CRITERIA: list[tuple[Reason, Score]] = [
    (_wrong_reason, lambda tables: _largest(tables, _wrong)),
    (_fragile_reason, _least_epsilon),
    (_astray_reason, lambda tables: _largest(tables, _astray)),
    (_apart_reason, _apart),
]
