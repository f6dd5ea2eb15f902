"""The best epsilon of each image (P1.f), chosen without its mask, and what that gains.

Models trained at several epsilons give several maps of an image, and P1 sees by eye that the best
epsilon differs from image to image. Here a measure that needs no mask chooses among the maps, and
the localisation of the chosen ones is set beside that of every single epsilon.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from torch import Tensor

from diascope.evaluation.measures.localisation import AveragePrecision
from diascope.evaluation.measures.sharpness import Gini
from diascope.evaluation.resampling import REPLICATES, Floats, group_codes
from diascope.evaluation.statistics import (
    Groups,
    Interval,
    bootstrap_difference,
    bootstrap_mean,
)
from diascope.randomness import derive

Values = Mapping[str, npt.ArrayLike]
Ints = npt.NDArray[np.int64]


class MapMeasure(Protocol):
    """A measure that looks at the map alone, such as any of the family "sharpness"."""

    higher_is_better: bool

    def __call__(self, heat: Tensor) -> Tensor:
        """Return the measure of maps (B, H, W), (B,)."""
        ...


@dataclass(frozen=True, eq=False)
class Choice:
    """What choosing an epsilon for each image comes to, against one epsilon for all.

    epsilons: the E names. chosen (B,): the place in them of the map chosen for each image, -1
    where no map has a quality. The rest speaks of localisation, its mean over the images on which
    it is defined for every epsilon and a map was chosen, with intervals over groups:

    - `per_image`: of the chosen maps; `single`: of each epsilon;
    - `crossfitted`: of the best single epsilon, found for each fold of groups on the other folds,
      as one who has some masks would find it for new images; `others_best` (B,) its place;
    - `best` and `best_in_hindsight`: the epsilon that is best on these very images, and its value,
      which is too good; `oracle`: of the map that localises best in each image, which nothing
      that does not know the masks can pass;
    - `gain`: per_image less crossfitted, paired by image; `gain_in_hindsight`: less `best`.

    A gain whose interval lies above zero says that choosing helps on new groups of these sources,
    with these models; of new training seeds it says nothing.
    """

    epsilons: tuple[str, ...]
    chosen: Ints
    others_best: Ints
    best: str
    per_image: Interval
    single: Mapping[str, Interval]
    crossfitted: Interval
    best_in_hindsight: Interval
    oracle: Interval
    gain: Interval
    gain_in_hindsight: Interval

    @property
    def table(self) -> pd.DataFrame:
        """A row for every way to choose: `choice`, `localisation`, `low`, `high`, `images`."""
        ways = {
            "per image": self.per_image,
            "best single, from other groups": self.crossfitted,
            f"best single in hindsight ({self.best})": self.best_in_hindsight,
            "best of each image in hindsight": self.oracle,
            **{f"always {name}": value for name, value in self.single.items()},
            "gain of per image": self.gain,
            "gain in hindsight": self.gain_in_hindsight,
        }
        rows = [(way, v.value, v.low, v.high, v.images) for way, v in ways.items()]
        return pd.DataFrame(rows, columns=["choice", "localisation", "low", "high", "images"])


def choose_epsilon(
    maps: Mapping[str, Tensor],
    masks: Tensor,
    groups: Groups,
    *,
    by: MapMeasure | None = None,
    localisation: Callable[[Tensor, Tensor], Tensor] | None = None,
    folds: int = 5,
    seed: int = 0,
    replicates: int = REPLICATES,
    level: float = 0.95,
) -> Choice:
    """Choose for each image the map that is best `by` a measure without masks, and judge it.

    maps: (B, H, W) of the same images for each epsilon, by name; masks (B, H, W) bool, which only
    judge; groups (B,): patients or lesions. by: by default `Gini`; localisation: by default
    `AveragePrecision`. For a measure that needs the model, such as of the family "faithfulness",
    give its values to `compare_choices`. The rest is as there.
    """
    judge = localisation or AveragePrecision()
    measure = by or Gini()
    return compare_choices(
        {name: _array(measure(heat)) for name, heat in maps.items()},
        {name: _array(judge(heat, masks)) for name, heat in maps.items()},
        groups,
        higher_is_better=measure.higher_is_better,
        folds=folds,
        seed=seed,
        replicates=replicates,
        level=level,
    )


def compare_choices(
    quality: Values,
    localisation: Values,
    groups: Groups,
    *,
    higher_is_better: bool = True,
    folds: int = 5,
    seed: int = 0,
    replicates: int = REPLICATES,
    level: float = 0.95,
) -> Choice:
    """Choose for each image the epsilon of the best `quality`, and judge by `localisation`.

    Both have, for each epsilon by name, values (B,) of the same images. Of equal qualities the
    first epsilon is taken. Raises `ValueError` for names or lengths that differ, fewer than two
    epsilons, and fewer than two groups on which all is defined.
    """
    names, wanted, found = _aligned(quality, localisation, groups)
    wanted = wanted if higher_is_better else -wanted
    chosen = np.where(
        np.isnan(wanted).all(0), -1, np.where(np.isnan(wanted), -np.inf, wanted).argmax(0)
    ).astype(np.int64)
    there = np.flatnonzero((chosen >= 0) & ~np.isnan(found).any(0))
    codes, _ = group_codes(groups)
    if len(np.unique(codes[there])) < 2:
        raise ValueError("localisation is defined on fewer than two groups: nothing to compare")
    here, codes = found[:, there], codes[there]
    others = _best_of_others(here, codes, folds, seed)
    others_best = np.full(found.shape[1], -1, np.int64)
    others_best[there] = others
    best = int(here.mean(1).argmax())
    rows = np.arange(len(there))
    own, crossed = here[chosen[there], rows], here[others, rows]

    def mean(values: Floats) -> Interval:
        return bootstrap_mean(values, codes, replicates=replicates, seed=seed, level=level)

    def difference(a: Floats, b: Floats) -> Interval:
        return bootstrap_difference(a, b, codes, replicates=replicates, seed=seed, level=level)

    return Choice(
        epsilons=names,
        chosen=chosen,
        others_best=others_best,
        best=names[best],
        per_image=mean(own),
        single={name: mean(values) for name, values in zip(names, here, strict=True)},
        crossfitted=mean(crossed),
        best_in_hindsight=mean(here[best]),
        oracle=mean(here.max(0)),
        gain=difference(own, crossed),
        gain_in_hindsight=difference(own, here[best]),
    )


def _aligned(
    quality: Values, localisation: Values, groups: Groups
) -> tuple[tuple[str, ...], Floats, Floats]:
    """Return the names, and both as arrays (E, B)."""
    names = tuple(str(name) for name in quality)
    if len(names) < 2 or set(quality) != set(localisation):
        raise ValueError(
            f"qualities of {', '.join(names) or 'nothing'}, localisation of "
            f"{', '.join(map(str, localisation)) or 'nothing'}: the same two or more are needed"
        )
    wanted = [np.asarray(values, np.float64) for values in quality.values()]
    found = [np.asarray(localisation[name], np.float64) for name in quality]
    shapes = {values.shape for values in (*wanted, *found)}
    if shapes != {(len(np.asarray(groups)),)}:
        raise ValueError(f"values of shapes {sorted(shapes)} for {len(np.asarray(groups))} images")
    return names, np.stack(wanted), np.stack(found)


def _best_of_others(found: Floats, codes: Ints, folds: int, seed: int) -> Ints:
    """Return for each image the epsilon that is best on the groups of the other folds, (B,)."""
    known, group = np.unique(codes, return_inverse=True)
    folds = min(folds, len(known))
    if folds < 2:
        raise ValueError(f"{folds} folds: at least two are needed")
    order = np.random.default_rng(derive(seed, "choosing")).permutation(len(known))
    fold = (order % folds)[group]  # (B,)
    best = np.array([found[:, fold != k].mean(1).argmax() for k in range(folds)])
    return best[fold].astype(np.int64)


def _array(values: Tensor) -> Floats:
    return values.detach().to("cpu", torch.float64).numpy()
