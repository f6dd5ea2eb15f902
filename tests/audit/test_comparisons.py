"""What is told apart between two models, from tables whose differences are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from diascope.audit.comparing import with_parts
from diascope.audit.parts import UNKNOWN, CorruptionScore, Operating, OperatingPoint
from diascope.audit.results import Comparison, ModelResult
from diascope.audit.summarise import Summary

COUNT = 60
LABELS = np.array(["benign", "malignant", "other"])[np.arange(COUNT) % 3]
GROUPS = np.array([f"g{i // 2}" for i in range(COUNT)], dtype=object)
GRID = (0.0, 0.5, 1.0)


def table(right, minimal=None, **columns):
    """A table of a model that is right where `right`, and else takes the next class."""
    names = ["benign", "malignant", "other"]
    truth = np.array([names.index(label) for label in LABELS])
    said = np.where(right, truth, (truth + 1) % 3)
    p = {f"prob_{n}": np.where(said == k, 0.8, 0.1) for k, n in enumerate(names)}
    minimal = np.where(right, np.inf, 0.0) if minimal is None else minimal
    return pd.DataFrame(
        {"label": LABELS, "correct": right, **p, "minimal_epsilon": minimal, **columns}
    )


def compared(ours, theirs, **options):
    summary = Summary({"a": theirs, "b": ours}, GROUPS, GRID, 200, 0, **options)
    return summary.compare("b", "a")


def test_models_that_never_disagree_are_not_certainly_alike():
    right = np.arange(COUNT) % 5 > 0
    found = compared(table(right), table(right))
    limit = 1 - 0.025 ** (1 / 30)  # of 30 groups
    assert found.scores["accuracy"] == (0, pytest.approx(-limit), pytest.approx(limit))
    for value, low, high in found.curve:
        assert (value, low, high) == (0, pytest.approx(-limit), pytest.approx(limit))
    balanced = found.scores["balanced_accuracy"]
    wide = 1 - (0.025 / 3) ** (1 / 20)  # each class is of 20 groups, and there are three
    assert balanced == (0, pytest.approx(-wide), pytest.approx(wide))
    other = right.copy()
    other[[0, 7]] = ~other[[0, 7]]
    some = compared(table(other), table(right))
    assert some.scores["accuracy"][1:] != found.scores["accuracy"][1:]
    assert some.scores["balanced_accuracy"][2] < wide


def model(name, epsilons=(), severities=()):
    points = [OperatingPoint(eps, 0, 0, 0, UNKNOWN, UNKNOWN, 0, 0) for eps in epsilons]
    operating = Operating(["malignant", "other"], "r", 0.5, "c", points) if epsilons else None
    changed = [CorruptionScore("blur", s, 0, UNKNOWN, UNKNOWN) for s in severities]
    empty = (name, "net", 1, {}, {}, {}, [], float("nan"), {}, {})
    return ModelResult(*empty, operating=operating, corruptions=changed)


def with_columns(columns, other, epsilons=((0.0, 0.5), (0.0, 0.5)), severities=((3,), (3,))):
    """Return a comparison of b less a, whose tables have these columns."""
    right = np.ones(COUNT, bool)
    tables = {"a": table(right, **other), "b": table(right, **columns)}
    summary = Summary(tables, GROUPS, GRID, 400, 0)
    models = [model(n, e, s) for n, e, s in zip("ba", epsilons, severities, strict=True)]
    return with_parts(Comparison("b", "a", {}, [], {}, {}), summary, *models)


def test_sensitivity_and_specificity_are_compared_by_pairs():
    positive = LABELS != "benign"  # 40 of 60
    ours, theirs = np.ones(COUNT), np.ones(COUNT)
    theirs[np.flatnonzero(positive)[:10]] = 0  # it misses ten that ours finds
    minimal = {"b": np.full(COUNT, np.nan), "a": np.full(COUNT, np.nan)}
    drawn = np.r_[np.flatnonzero(positive)[:8], np.flatnonzero(~positive)[:8]]
    minimal["b"][drawn], minimal["a"][drawn] = np.inf, np.inf
    minimal["a"][drawn[8:12]] = 0.5  # attacks turn four of its eight negative ones
    columns = {"threshold:correct": ours, "threshold:minimal_epsilon": minimal["b"]}
    other = {"threshold:correct": theirs, "threshold:minimal_epsilon": minimal["a"]}
    clean, attacked = with_columns(columns, other, ((0.0, 0.5, 1.0), (0.0, 0.5))).operating
    assert (clean.eps, clean.positives, clean.negatives) == (0.0, 40, 20)
    assert clean.sensitivity[0] == pytest.approx(10 / 40)
    assert 0 < clean.sensitivity[1] < 10 / 40 < clean.sensitivity[2]
    assert clean.specificity[0] == 0
    assert clean.specificity[1] < 0 < clean.specificity[2]  # never seen apart is not the same
    assert (attacked.eps, attacked.positives, attacked.negatives) == (0.5, 8, 8)
    assert attacked.sensitivity[0] == 0
    assert attacked.specificity[0] == pytest.approx(4 / 8)
    paired = attacked.specificity[2] - attacked.specificity[1]
    assert 0 < paired < 1


def test_corruptions_are_compared_on_the_images_that_both_met():
    met = np.where(np.arange(COUNT) < 30, 1.0, np.nan)
    ours, theirs = met.copy(), met.copy()
    theirs[:12] = 0
    columns, other = {"blur:3:correct": ours}, {"blur:3:correct": theirs}
    (found,) = with_columns(columns, other, ((), ()), ((1, 3), (3, 5))).corruptions
    assert (found.name, found.severity, found.images) == ("blur", 3, 30)
    assert found.accuracy[0] == pytest.approx(12 / 30)
    assert found.accuracy[1] > 0
    nothing = with_columns({}, {}, ((0.0,), ()), ((3,), ()))
    assert nothing.operating == nothing.corruptions == []
