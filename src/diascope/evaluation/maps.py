"""All measures of maps in one table with a row an image, and models compared by them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from diascope.errors import UserError
from diascope.evaluation.localisation import (
    CENTRE_SIGMA,
    centre_prior,
    joined,
    localised,
    same_images,
)
from diascope.evaluation.measures import MEASURES, members
from diascope.evaluation.measures.localisation import MassInside
from diascope.evaluation.measures.maps import Maps, chunks
from diascope.evaluation.resampling import REPLICATES
from diascope.evaluation.statistics import Interval, bootstrap_difference, bootstrap_mean

SUBSETS = ("all", "all_correct")
COLUMNS = ["measure", "subset", "model", "value", "low", "high", "images", "groups"]
COLUMNS += ["difference", "difference_low", "difference_high"]


def maps_table(
    heat: Tensor,
    *,
    x: Tensor | None = None,
    masks: Tensor | None = None,
    regions: Mapping[str, Tensor] | None = None,
    others: Mapping[str, Tensor] | None = None,
    sigma: float = CENTRE_SIGMA,
) -> dict[str, npt.NDArray[np.float32]]:
    """Return columns (B,) for a table with a row an image, of every measure that needs no model.

    heat: maps (B, H, W), not negative, not rendered. Always the family sharpness, each measure
    under its name. With `masks` (B, H, W) bool, the columns of `localisation_table`, and with the
    images `x` (B, C, H, W) in [0, 1] beside them, the family colour. For each of `regions`
    (name -> (B, H, W) bool, such as the phantom's hairs) `<name>_share`, the share of the map's
    sum that lies on it, and `<name>_share_chance`, the region's share of the area. For each of
    `others` (name -> maps (B, H, W) of the same images, such as those of another training seed)
    the family agreement as `<name>_<measure>`. NaN where a measure is undefined.

    A map is sorted once for all measures (colour's ranks, of the mask's pixels alone, are found
    anew), and some images are measured at a time, so that memory
    beyond the maps' own does not grow with B.
    """
    kinds = {family: members(family) for family in ("sharpness", "localisation", "colour")}
    _, height, width = heat.shape
    prior = centre_prior(height, width, sigma, heat.device)
    beside = (x, masks, *(regions or {}).values(), *(others or {}).values())
    same_images(heat, *(each for each in beside if each is not None))
    parts: list[dict[str, Tensor]] = []
    for rows in chunks(heat):
        inside = None if masks is None else masks[rows]
        maps = Maps(heat[rows], inside)
        columns = {} if inside is None else localised(maps, kinds["localisation"], prior)
        columns |= {name: measure.of(maps) for name, measure in kinds["sharpness"].items()}
        if x is not None and inside is not None:
            columns |= {
                name: measure.of(maps, x[rows]) for name, measure in kinds["colour"].items()
            }
        for name, region in (regions or {}).items():
            columns |= _shares(name, maps, region[rows])
        for name, other in (others or {}).items():
            columns |= _agreements(name, maps, other[rows])
        parts.append(columns)
    return joined(parts)


def compare_maps(
    tables: Mapping[str, pd.DataFrame],
    measures: Sequence[str] | None = None,
    *,
    reference: str | None = None,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> pd.DataFrame:
    """Return the means of measures by model, over all images and over those all get right.

    tables: model -> a table of predictions (`prediction_table`: columns `id`, `group`, `correct`)
    with columns of measures, of the same images in any order. `measures`: the columns compared,
    by default those that all tables have and that are a registered measure's. One row a measure,
    subset ("all", or "all_correct": the images that every model classifies correctly) and model:

    - `value`, `low`, `high`, `images`, `groups`: the mean over the images where the measure is
      defined, with its interval of `level` over groups;
    - `difference`, `difference_low`, `difference_high`: less the mean of the model `reference`
      (by default the first), paired by image; NaN for the reference itself.

    Raises `UserError` for tables of other images, and for columns or a reference that is not
    there.
    """
    reference, measures = _chosen(tables, measures, reference)
    tables = _aligned(tables)
    first = tables[reference]
    options: dict[str, Any] = {"replicates": replicates, "seed": seed, "level": level}
    right = np.logical_and.reduce([t["correct"].to_numpy(dtype=bool) for t in tables.values()])
    rows: list[tuple[Any, ...]] = []
    for measure in measures:
        for subset, chosen in zip(SUBSETS, (np.ones_like(right), right), strict=True):
            groups = first["group"][chosen]
            theirs = first[measure][chosen]
            for model, table in tables.items():
                ours = table[measure][chosen]
                mean = bootstrap_mean(ours, groups, **options)
                apart = Interval(np.nan, np.nan, np.nan)
                if model != reference:
                    apart = bootstrap_difference(ours, theirs, groups, **options)
                rows.append((measure, subset, model, *_bounds(mean), mean.images, mean.groups))
                rows[-1] += _bounds(apart)
    return pd.DataFrame(rows, columns=COLUMNS)


def _bounds(interval: Interval) -> tuple[float, float, float]:
    return interval.value, interval.low, interval.high


def _shares(name: str, maps: Maps, region: Tensor) -> dict[str, Tensor]:
    region = region.to(maps.heat.device)
    measure, on = MassInside(), Maps(maps.heat, region)
    share = torch.where(maps.finite, measure.of(on), torch.nan)
    return {f"{name}_share": share, f"{name}_share_chance": measure.chance(region)}


def _agreements(name: str, maps: Maps, other: Tensor) -> dict[str, Tensor]:
    others = Maps(other.to(maps.heat.device))
    return {f"{name}_{key}": each.of(maps, others) for key, each in members("agreement").items()}


def _chosen(
    tables: Mapping[str, pd.DataFrame], measures: Sequence[str] | None, reference: str | None
) -> tuple[str, list[str]]:
    """Return the reference and the columns to compare."""
    if not tables:
        raise UserError("there are no tables to compare")
    reference = next(iter(tables)) if reference is None else reference
    if reference not in tables:
        raise UserError(f"no table of the model '{reference}': there are {', '.join(tables)}")
    if measures is None:
        first = tables[reference]
        measures = [name for name in MEASURES if all(name in t for t in tables.values())]
        measures = sorted(measures, key=list(first).index)
    wanted = ["id", "group", "correct", *measures]
    for model, table in tables.items():
        missing = [name for name in wanted if name not in table]
        if missing:
            raise UserError(f"the table of '{model}' has no column '{missing[0]}'")
    return reference, list(measures)


def _aligned(tables: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return the tables with their rows in the order of the first."""
    names, ids = list(tables), next(iter(tables.values()))["id"].to_numpy()
    aligned = {}
    for name, table in tables.items():
        place = pd.Index(table["id"])
        if len(table) != len(ids) or not place.is_unique or (place.get_indexer(ids) < 0).any():
            raise UserError(f"the tables of '{names[0]}' and '{name}' are not of the same images")
        aligned[name] = table.iloc[place.get_indexer(ids)].reset_index(drop=True)
    return aligned
