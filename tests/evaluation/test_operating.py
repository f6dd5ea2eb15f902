"""Thresholds and decisions, against scikit-learn and against what is known of small sets."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, precision_score, recall_score, roc_curve

from diascope.errors import UserError
from diascope.evaluation.operating import (
    choose_threshold,
    decisions,
    positive_score,
    right_at,
    roc,
)

SETS = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=2, max_size=40)


def drawn(seed: int, count: int = 200, levels: int | None = None):
    rng = np.random.default_rng(seed)
    truth = rng.random(count) < 0.3
    scores = rng.normal(truth * 1.2, 1)
    return (np.round(scores * levels) / levels if levels else scores), truth


@pytest.mark.parametrize("levels", [None, 3])
def test_the_roc_curve_is_scikit_learns(levels):
    scores, truth = drawn(0, levels=levels)
    fpr, tpr, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    curve = roc(scores, truth)
    np.testing.assert_allclose(curve.thresholds, thresholds)
    np.testing.assert_allclose(curve.sensitivity, tpr)
    np.testing.assert_allclose(1 - curve.specificity, fpr)


@pytest.mark.parametrize("wanted", [0.5, 0.9, 0.95, 1.0])
@pytest.mark.parametrize("levels", [None, 3])
def test_the_threshold_is_the_largest_that_reaches_the_sensitivity(wanted, levels):
    scores, truth = drawn(1, levels=levels)
    _, tpr, thresholds = roc_curve(truth, scores, drop_intermediate=False)
    chosen = choose_threshold(scores, truth, wanted=wanted)
    assert chosen == thresholds[tpr >= wanted - 1e-12].max()
    assert right_at(scores, truth, chosen)[truth].mean() >= wanted - 1e-12
    assert right_at(scores, truth, np.nextafter(chosen, np.inf))[truth].mean() < wanted


def test_the_wanted_sensitivity_is_met_exactly_where_it_can_be():
    scores = np.arange(10.0)
    assert choose_threshold(scores, np.ones(10, bool), wanted=0.9) == 1  # nine of ten, not ten
    assert choose_threshold(scores, np.ones(10, bool), wanted=0.7) == 3  # 0.7 * 10 is above 7
    assert choose_threshold(scores, scores >= 5, rule="half") == 0.5


def test_youdens_threshold_is_that_of_scikit_learns_curve():
    for seed in range(5):
        scores, truth = drawn(seed, levels=4)
        fpr, tpr, thresholds = roc_curve(truth, scores, drop_intermediate=False)
        assert choose_threshold(scores, truth, rule="youden") == thresholds[np.argmax(tpr - fpr)]


@given(SETS, st.integers(0, 8), st.integers(0, 8))
def test_sensitivity_falls_and_specificity_rises_with_the_threshold(pairs, one, other):
    scores, truth = (np.array(column) for column in zip(*pairs, strict=True))
    low, high = sorted((one, other))
    below, above = (right_at(scores, truth, t) for t in (low, high))
    assert above[truth].sum() <= below[truth].sum()
    assert above[~truth].sum() >= below[~truth].sum()
    curve = roc(scores, truth)
    if truth.any() and not truth.all():
        assert (np.diff(curve.sensitivity) >= 0).all()
        assert (np.diff(curve.specificity) <= 0).all()
        assert (curve.sensitivity[0], curve.specificity[0]) == (0, 1)
        assert (curve.sensitivity[-1], curve.specificity[-1]) == (1, 0)


@given(SETS, st.floats(0.05, 1))
def test_a_chosen_threshold_reaches_what_is_wanted(pairs, wanted):
    scores, truth = (np.array(column) for column in zip(*pairs, strict=True))
    chosen = choose_threshold(scores, truth, wanted=wanted)
    if not truth.any() or len(set(scores)) == 1:
        assert np.isnan(chosen)
    else:
        assert right_at(scores, truth, chosen)[truth].mean() >= wanted - 1e-9


def test_decisions_are_scikit_learns():
    scores, truth = drawn(2, 300)
    right = right_at(scores, truth, 0.4)
    called = scores >= 0.4
    found = decisions(right, truth, np.arange(300), replicates=200)
    (tn, fp), (fn, tp) = confusion_matrix(truth, called)
    assert (found.missed, found.false_alarms) == (fn, fp)
    assert (found.positives, found.negatives) == (fn + tp, tn + fp)
    assert found.sensitivity.value == pytest.approx(recall_score(truth, called))
    assert found.specificity.value == pytest.approx(recall_score(~truth, ~called))
    assert found.ppv.value == pytest.approx(precision_score(truth, called))
    assert found.npv.value == pytest.approx(precision_score(~truth, ~called))
    for interval in (found.sensitivity, found.specificity, found.ppv, found.npv):
        assert interval.low < interval.value < interval.high


def test_predictive_values_are_those_of_the_stated_prevalence():
    truth = np.repeat([True, False], 100)
    right = np.concatenate([np.arange(100) < 90, np.arange(100) < 80])
    rare = decisions(right, truth, np.arange(200), prevalence=0.01, replicates=200)
    assert rare.ppv.value == pytest.approx(0.9 * 0.01 / (0.9 * 0.01 + 0.2 * 0.99))  # Bayes
    assert rare.npv.value == pytest.approx(0.8 * 0.99 / (0.8 * 0.99 + 0.1 * 0.01))
    none = decisions(right, truth, np.arange(200), prevalence=0.0, replicates=200)
    assert (none.ppv.value, none.npv.value) == (0, 1)
    with pytest.raises(UserError, match="prevalence"):
        decisions(right, truth, np.arange(200), prevalence=1.5)


def test_a_rate_of_one_is_not_certain_and_neither_is_what_follows_of_it():
    truth = np.repeat([True, False], 20)
    right = truth | (np.arange(40) % 2 == 0)  # none missed
    found = decisions(right, truth, np.arange(40), replicates=200)
    assert (found.npv.value, found.npv.high) == (1, 1)
    low, spared = found.sensitivity.low, found.specificity.low
    assert low == pytest.approx(0.025 ** (1 / 20))  # Clopper and Pearson
    assert found.npv.low == pytest.approx(spared / (spared + 1 - low))


def test_images_of_one_patient_are_drawn_together():
    truth = np.repeat([True, False], 60)
    right = np.repeat(np.arange(12) % 3 > 0, 10)  # a patient's ten images are all right or wrong
    alone = decisions(right, truth, np.arange(120), replicates=500).sensitivity
    together = decisions(right, truth, np.repeat(np.arange(12), 10), replicates=500).sensitivity
    assert together.value == alone.value
    assert together.high - together.low > 2 * (alone.high - alone.low)


def test_what_cannot_be_said_is_nan():
    nothing = decisions([], [], [], replicates=200)
    assert np.isnan(nothing.sensitivity.value)
    assert np.isnan(nothing.ppv.value)
    healthy = decisions([True, False, True], [False] * 3, ["a", "b", "c"], replicates=200)
    assert np.isnan(healthy.sensitivity.value)
    assert np.isnan(healthy.npv.low)
    assert healthy.specificity.value == pytest.approx(2 / 3)
    lone = decisions([True] * 4, [True, True, False, False], ["a", "a", "b", "c"], replicates=200)
    assert lone.sensitivity.value == 1
    assert np.isnan(lone.sensitivity.low)  # one patient tells nothing of the next
    assert np.isnan(lone.ppv.low)
    assert np.isnan(choose_threshold([1.0, 2.0], [False, False]))
    assert np.isnan(choose_threshold([0.5] * 4, [True, False, True, False]))
    assert np.isnan(choose_threshold([0.5] * 4, [True, False, True, False], rule="youden"))
    assert np.isnan(choose_threshold([0.1, 0.5], [True, True], rule="youden"))
    assert np.isnan(roc([0.1, 0.5], [False, False]).sensitivity).all()


def test_a_score_that_is_nan_is_wrong_whatever_the_image_is():
    scores, truth = np.array([np.nan, 2, 1, np.nan]), np.array([True, True, False, False])
    assert right_at(scores, truth, 1.5).tolist() == [False, True, True, False]
    assert choose_threshold(scores, truth, wanted=0.5) == 2
    assert np.isnan(choose_threshold(scores, truth, wanted=0.9))  # never reached


def test_positive_classes_add_up_and_nonsense_is_refused():
    p = np.array([[0.2, 0.3, 0.5], [0.6, 0.3, 0.1]])
    np.testing.assert_allclose(positive_score(p, [0, 2]), [0.7, 0.7])
    for chosen in ([], [0, 1, 2], [3], [-1]):
        with pytest.raises(UserError, match="positive classes"):
            positive_score(p, chosen)
    with pytest.raises(UserError, match="sensitivity 0"):
        choose_threshold([0.1, 0.2], [True, False], wanted=0)
    with pytest.raises(UserError, match="rule"):
        choose_threshold([0.1, 0.2], [True, False], rule="best")
    with pytest.raises(ValueError, match=r"\(N,\)"):
        roc([0.1, 0.2], [True])
