from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, roc_auc_score

from diascope.evaluation.resampling import resample_weights
from diascope.evaluation.scores import (
    accuracy,
    auroc,
    aurocs,
    balanced_accuracy,
    macro_auroc,
    recalls,
    score_table,
)


def sample(seed, n, k, coarse=False):
    """Return probabilities (N, K) that know something of the labels (N,), all classes present."""
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(k), rng.integers(0, k, n - k)]
    p = rng.random((n, k)) + 0.5 * (labels[:, None] == np.arange(k))
    if coarse:
        p = np.round(p * 4 + 1)
    return p / p.sum(1, keepdims=True), labels


def test_auroc_by_hand():
    positive = np.array([True, True, False, False])
    assert auroc([0.9, 0.4, 0.6, 0.1], positive)[0] == 0.75
    assert auroc([0.9, 0.8, 0.6, 0.1], positive)[0] == 1.0
    assert auroc([0.1, 0.2, 0.6, 0.9], positive)[0] == 0.0
    assert auroc([0.5, 0.5, 0.5, 0.5], positive)[0] == 0.5
    assert auroc([0.9, 0.5, 0.5, 0.1], positive)[0] == 0.875


@given(st.integers(0, 10_000), st.integers(4, 60), st.integers(1, 6))
def test_weighted_auroc_equals_sklearn(seed, n, values):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, n) / values  # many ties
    positive = np.r_[True, False, rng.random(n - 2) < 0.4]
    weights = rng.integers(0, 4, (5, n)).astype(float)
    found = auroc(scores, positive, weights)
    for row, value in zip(weights, found, strict=True):
        if row[positive].sum() == 0 or row[~positive].sum() == 0:
            assert np.isnan(value)
        else:
            assert value == pytest.approx(roc_auc_score(positive, scores, sample_weight=row))


@given(st.integers(0, 10_000), st.integers(2, 5), st.booleans())
def test_class_scores_equal_sklearn(seed, k, coarse):
    p, labels = sample(seed, 50, k, coarse)
    predicted = p.argmax(1)
    correct = predicted == labels
    assert accuracy(correct)[0] == pytest.approx(accuracy_score(labels, predicted))
    assert balanced_accuracy(correct, labels, k)[0] == pytest.approx(
        balanced_accuracy_score(labels, predicted)
    )
    if k == 2:
        expected = roc_auc_score(labels, p[:, 1])
    else:
        expected = roc_auc_score(labels, p, multi_class="ovr", average="macro")
    assert macro_auroc(p, labels)[0] == pytest.approx(expected)


def test_a_weight_of_two_is_an_image_twice():
    p, labels = sample(0, 40, 3)
    correct = p.argmax(1) == labels
    weights = resample_weights(np.arange(40), replicates=3).astype(int)
    for row in weights:
        rows = np.repeat(np.arange(40), row)
        w = row[None]
        assert accuracy(correct, w)[0] == pytest.approx(accuracy(correct[rows])[0])
        assert balanced_accuracy(correct, labels, 3, w)[0] == pytest.approx(
            balanced_accuracy(correct[rows], labels[rows], 3)[0]
        )
        np.testing.assert_allclose(aurocs(p, labels, w), aurocs(p[rows], labels[rows]))


def test_absent_classes_are_undefined_and_left_out_of_the_mean():
    p, labels = sample(1, 30, 2)
    wider = np.c_[p[:, 0], np.zeros(30), p[:, 1]]
    moved = labels * 2
    correct = wider.argmax(1) == moved
    assert np.isnan(recalls(correct, moved, 3)[0, 1])
    assert np.isnan(aurocs(wider, moved)[0, 1])
    assert balanced_accuracy(correct, moved, 3)[0] == pytest.approx(
        balanced_accuracy(correct, labels, 2)[0]
    )
    table = score_table(wider, moved, np.arange(30), classes=["mel", "nv", "bkl"], replicates=200)
    assert np.isnan(table["recall_nv"].value)
    assert np.isnan(table["auroc_nv"].value)
    assert table["auroc"].value == pytest.approx(auroc(p[:, 1], labels == 1)[0])
    assert table["auroc"].defined
    assert table["balanced_accuracy"].defined


def test_a_replicate_without_a_class_is_undefined():
    labels, correct = np.array([0, 0, 1, 1]), np.array([1, 1, 0, 1])
    found = balanced_accuracy(correct, labels, 2, [[1, 1, 1, 1], [2, 2, 0, 0]])
    assert found[0] == 0.75
    assert np.isnan(found[1])


def test_score_table_of_a_known_case():
    labels = np.array([0] * 30 + [1] * 10)
    p = np.full((40, 2), 0.5)
    p[:, 0] = 0.8  # always the first class
    p[:, 1] = 0.2
    table = score_table(p, labels, np.arange(40), classes=("nv", "mel"))
    assert list(table) == [
        "accuracy",
        "balanced_accuracy",
        "auroc",
        "recall_nv",
        "recall_mel",
        "majority_share",
        "chance",
    ]
    values = {name: interval.value for name, interval in table.items()}
    assert values == {
        "accuracy": 0.75,
        "balanced_accuracy": 0.5,
        "auroc": 0.5,
        "recall_nv": 1.0,
        "recall_mel": 0.0,
        "majority_share": 0.75,
        "chance": 0.5,
    }
    assert table["accuracy"] == table["majority_share"]
    assert 0.58 < table["accuracy"].low < 0.68
    assert 0.82 < table["accuracy"].high < 0.92
    assert table["recall_mel"].high == pytest.approx(0.3085, abs=1e-4)  # 0 of 10


def test_the_limits_of_auroc_have_the_width_of_the_known_standard_error():
    rng = np.random.default_rng(0)
    labels = np.r_[np.zeros(300, int), np.ones(300, int)]
    score = rng.normal(size=600) + labels
    p = np.c_[-score, score]
    found = score_table(p, labels, np.arange(600))["auroc"]
    a = found.value
    q1, q2 = a / (2 - a), 2 * a * a / (1 + a)  # Hanley and McNeil 1982
    variance = (a * (1 - a) + 299 * (q1 - a * a) + 299 * (q2 - a * a)) / 300**2
    assert found.high - found.low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.12)


def test_images_with_probabilities_that_are_not_finite_are_wrong():
    p, labels = sample(0, 20, 3)
    p[:5] = np.nan
    table = score_table(p, labels, np.arange(20), predicted=labels, replicates=50)
    assert table["accuracy"].value == 0.75
    assert np.isnan(table["auroc"].value)


def test_a_class_of_a_single_group_has_values_but_no_limits():
    p, labels = sample(0, 60, 3)
    groups = np.where(labels == 2, 1000, np.arange(60))
    table = score_table(p, labels, groups, replicates=200)
    for name in ("balanced_accuracy", "auroc", "recall_2", "auroc_2"):
        assert np.isfinite(table[name].value)
        assert not table[name].defined, name
    for name in ("accuracy", "recall_0", "auroc_0"):
        assert table[name].defined, name


def test_no_images():
    table = score_table(np.empty((0, 3)), [], [])
    assert not any(table[name].defined for name in table if name != "chance")
    assert table["chance"].value == pytest.approx(1 / 3)
