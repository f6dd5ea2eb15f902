"""From per-image tables to numbers with intervals; nothing here sees a model or a pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.audit.parts import Bounds, Localisation
from diascope.audit.results import Comparison, ModelResult
from diascope.audit.telling import finite
from diascope.evaluation import (
    Interval,
    bootstrap_curve,
    bootstrap_curve_difference,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_statistics,
    score_predictions,
)
from diascope.evaluation.measures import members
from diascope.evaluation.scores import balanced_accuracy, macro_auroc
from diascope.evaluation.statistics import unseen_share

Floats = NDArray[np.float64]
SCORES = ("accuracy", "balanced_accuracy", "auroc")


class Summary:
    """The intervals of one audit: its tables by model, in the same row order, and its grid."""

    def __init__(
        self,
        tables: Mapping[str, pd.DataFrame],
        groups: NDArray[np.object_],
        epsilons: Sequence[float],
        replicates: int,
        seed: int,
    ) -> None:
        self.tables = tables
        self.groups = groups
        self.epsilons = np.asarray(epsilons, dtype=np.float64)
        self.options: dict[str, Any] = {"replicates": replicates, "seed": seed}
        right = [table.correct.to_numpy(dtype=bool) for table in tables.values()]
        self.all_correct = np.logical_and.reduce(right)

    def model(
        self, name: str, architecture: str, parameters: int, objective: dict[str, Any]
    ) -> ModelResult:
        """Return the numbers of one model."""
        table = self.tables[name]
        scores = score_predictions(table.assign(group=self.groups), **self.options)
        recall = {
            key.removeprefix("recall_"): bounds(value)
            for key, value in scores.items()
            if key.startswith("recall_")
        }
        tried = self._tried(name)
        withstood, groups = self._withstood(name)[tried], self.groups[tried]
        minimal = table.minimal_epsilon[tried]
        return ModelResult(
            name=name,
            architecture=architecture,
            parameters=parameters,
            objective=objective,
            scores={key: bounds(scores[key]) for key in SCORES},
            recall=recall,
            curve=[bounds(i) for i in bootstrap_curve(withstood, groups, **self.options)],
            median_epsilon=float(np.median(minimal)) if len(minimal) else float("nan"),
            localisation=self._localisation(table, np.ones(len(table), dtype=bool)),
            localisation_correct=self._localisation(table, self.all_correct),
            attacked=int(tried.sum()),
            not_finite=int((~finite(table)).sum()),
        )

    def compare(self, name: str, reference: str) -> Comparison:
        """Return the paired differences of one model less another."""
        ours, theirs = self.tables[name], self.tables[reference]
        tried = self._tried(name) & self._tried(reference)
        curve = bootstrap_curve_difference(
            self._withstood(name)[tried],
            self._withstood(reference)[tried],
            self.groups[tried],
            **self.options,
        )
        accuracy = self._difference(ours.correct, theirs.correct, slice(None), proportion=True)
        every = np.ones(len(ours), dtype=bool)
        return Comparison(
            model=name,
            reference=reference,
            scores={"accuracy": accuracy, **self._score_differences(ours, theirs)},
            curve=[bounds(interval) for interval in curve],
            localisation=self._differences(ours, theirs, every),
            localisation_correct=self._differences(ours, theirs, self.all_correct),
        )

    def _score_differences(self, ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, Bounds]:
        """Return the paired differences of the scores that are no means over images."""
        columns = [name for name in ours if str(name).startswith("prob_")]
        classes = [str(name).removeprefix("prob_") for name in columns]
        labels = ours.label.map({name: c for c, name in enumerate(classes)}).to_numpy()

        def scores(table: pd.DataFrame, weights: Floats) -> Floats:  # (R, 2)
            right = table.correct.to_numpy(dtype=np.float64)
            balanced = balanced_accuracy(right, labels, len(classes), weights)
            return np.column_stack([balanced, macro_auroc(table[columns], labels, weights)])

        found = bootstrap_statistics(
            lambda w: scores(ours, w) - scores(theirs, w), self.groups, **self.options
        )
        of_class = pd.Series(self.groups).groupby(labels).nunique()
        alone = of_class.eq(1).any()  # a class of one
        values = [(i.value, np.nan, np.nan) if alone else bounds(i) for i in found]
        if not alone and (ours.correct == theirs.correct).all():
            values[0] = (0.0, *_unlike(of_class.to_list()))
        return dict(zip(("balanced_accuracy", "auroc"), values, strict=True))

    def _tried(self, name: str) -> NDArray[np.bool_]:
        """Return which images (N,) were attacked."""
        return self.tables[name].minimal_epsilon.notna().to_numpy()

    def _withstood(self, name: str) -> NDArray[np.float64]:
        minimal = self.tables[name].minimal_epsilon.to_numpy(dtype=np.float64)
        withstood: NDArray[np.float64] = (minimal[:, None] > self.epsilons).astype(np.float64)
        return withstood

    def _localisation(
        self, table: pd.DataFrame, rows: NDArray[np.bool_]
    ) -> dict[str, Localisation]:
        found = {}
        for measure in members("localisation"):
            if measure not in table or not np.isfinite(table[measure][rows]).any():
                continue
            columns = [table[measure + suffix][rows] for suffix in ("", "_chance", "_centre")]
            means = [bootstrap_mean(c, self.groups[rows], **self.options) for c in columns]
            found[measure] = Localisation(
                value=bounds(means[0]),
                chance=bounds(means[1]),
                centre=bounds(means[2]),
                above_chance=self._difference(columns[0], columns[1], rows),
                above_centre=self._difference(columns[0], columns[2], rows),
            )
        return found

    def _differences(
        self, ours: pd.DataFrame, theirs: pd.DataFrame, rows: NDArray[np.bool_]
    ) -> dict[str, Bounds]:
        return {
            measure: self._difference(ours[measure][rows], theirs[measure][rows], rows)
            for measure in members("localisation")
            if measure in ours and np.isfinite(ours[measure][rows]).any()
        }

    def _difference(self, a: Any, b: Any, rows: Any, *, proportion: bool = False) -> Bounds:
        found = bootstrap_difference(a, b, self.groups[rows], proportion=proportion, **self.options)
        return bounds(found)


def _unlike(groups: Sequence[int], level: float = 0.95) -> tuple[float, float]:
    """Return the limits of a difference in balanced accuracy of models that never disagreed.

    groups: how many each class has. The mean of the exact limits of the classes, which hold for
    all of them at once (Bonferroni).
    """
    each = [unseen_share(count, 1 - (1 - level) / len(groups)) for count in groups]
    limit = sum(each) / len(each)
    return -limit, limit


def bounds(interval: Interval) -> Bounds:
    """Return an interval as (value, low, high)."""
    return interval.value, interval.low, interval.high
