"""What is told apart between two models, from tables whose differences are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

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
