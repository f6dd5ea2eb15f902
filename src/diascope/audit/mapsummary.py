"""From the columns of maps to numbers with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diascope.audit.parts import Bounds, Faithful, Localisation, MapScores
from diascope.evaluation import MEASURES, Interval, bootstrap_difference, bootstrap_mean
from diascope.evaluation.measures import members

Columns = Mapping[str, Any]  # name -> (N,), such as a table


def prefix_of(name: str, shown: str) -> str:
    """Return what precedes the columns of a method: nothing for the one that is shown."""
    return "" if name == shown else f"{name}:"


def localisations(
    columns: Columns,
    prefix: str,
    rows: NDArray[np.bool_],
    groups: NDArray[np.object_],
    bootstrap: Mapping[str, Any],
) -> dict[str, Localisation]:
    """Return each measure of localisation over some rows (N,), beside chance and centre prior.

    Measures without a column, or undefined throughout, are left out.
    """
    found = {}
    for measure in members("localisation"):
        name = prefix + measure
        if name not in columns or not np.isfinite(np.asarray(columns[name])[rows]).any():
            continue
        value, chance, centre = (
            np.asarray(columns[name + suffix])[rows] for suffix in ("", "_chance", "_centre")
        )
        found[measure] = Localisation(
            value=mean(value, groups[rows], bootstrap),
            chance=mean(chance, groups[rows], bootstrap),
            centre=mean(centre, groups[rows], bootstrap),
            above_chance=difference(value, chance, groups[rows], bootstrap),
            above_centre=difference(value, centre, groups[rows], bootstrap),
        )
    return found


def with_correct(
    maps: Sequence[MapScores],
    columns: Columns,
    correct: NDArray[np.bool_],
    groups: NDArray[np.object_],
    bootstrap: Mapping[str, Any],
) -> list[MapScores]:
    """Return the scores with `localisation_correct` over the images that are `correct` (N,).

    Where several models are compared these are the images that every one classifies correctly.
    """
    shown = maps[0].name if maps else ""
    return [
        replace(
            each,
            localisation_correct=localisations(
                columns, prefix_of(each.name, shown), correct, groups, bootstrap
            ),
        )
        for each in maps
    ]


def faithfuls(
    columns: Columns,
    prefix: str,
    names: Sequence[str],
    groups: NDArray[np.object_],
    bootstrap: Mapping[str, Any],
) -> dict[str, Faithful]:
    """Return each measure of faithfulness beside the orders that know nothing of the model.

    Reads `<prefix><name>`, `<name>_random` and `<name>_centre`, of the images that have all.
    """
    found = {}
    for name in names:
        ours = np.asarray(columns[prefix + name])
        there = np.isfinite(ours)
        if not there.any():
            continue
        sign = 1 if MEASURES[name].higher_is_better else -1
        random, centre = (
            np.where(there, columns[name + suffix], np.nan) for suffix in ("_random", "_centre")
        )
        found[name] = Faithful(
            value=mean(ours, groups, bootstrap),
            random=mean(random, groups, bootstrap),
            centre=mean(centre, groups, bootstrap),
            over_random=difference(sign * ours, sign * random, groups, bootstrap),
            over_centre=difference(sign * ours, sign * centre, groups, bootstrap),
            images=int(there.sum()),
        )
    return found


def mean(values: Any, groups: NDArray[np.object_], bootstrap: Mapping[str, Any]) -> Bounds:
    """Return the mean (N,) with its interval; NaN is left out."""
    return _bounds(bootstrap_mean(values, groups, **bootstrap))


def difference(a: Any, b: Any, groups: NDArray[np.object_], bootstrap: Mapping[str, Any]) -> Bounds:
    """Return the mean of a - b (N,), paired by image, with its interval."""
    return _bounds(bootstrap_difference(a, b, groups, **bootstrap))


def _bounds(interval: Interval) -> Bounds:
    return interval.value, interval.low, interval.high
