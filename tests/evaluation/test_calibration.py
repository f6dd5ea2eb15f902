"""Calibration scores against loops, torchmetrics, and models whose calibration is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import multiclass_calibration_error

from diascope.evaluation.calibration import (
    bin_numbers,
    brier_score,
    calibration_error,
    calibration_error_by_chance,
    calibration_interval,
    confidence_of,
    edges_of,
    log_loss,
    reliability,
)


def answers(count=400, classes=3, seed=0, sharpness=2.0):
    """Probabilities, and labels drawn from them: a perfectly calibrated model."""
    rng = np.random.default_rng(seed)
    logits = sharpness * rng.normal(size=(count, classes))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (rng.random(count)[:, None] > p.cumsum(1)).sum(1).clip(0, classes - 1)
    return p, labels


def by_loop(sure, right, weights, bins):
    total = 0.0
    for b in range(bins):
        low, high = b / bins, (b + 1) / bins
        inside = [i for i in range(len(sure)) if low < sure[i] <= high or (b == 0 == sure[i])]
        mass = sum(weights[i] for i in inside)
        if mass:
            accuracy = sum(weights[i] * right[i] for i in inside) / mass
            confidence = sum(weights[i] * sure[i] for i in inside) / mass
            total += mass / sum(weights) * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("bins", [10, 15])
def test_the_error_is_that_of_a_loop_for_every_replicate(classes, bins):
    p, labels = answers(60, classes)
    sure, right = confidence_of(p), p.argmax(1) == labels
    weights = np.random.default_rng(1).integers(0, 3, (4, 60)).astype(float)
    found = calibration_error(sure, right, weights, bins=bins)
    assert found.shape == (4,)
    np.testing.assert_allclose(found, [by_loop(sure, right, w, bins) for w in weights])
    (plain,) = calibration_error(sure, right, bins=bins)
    assert plain == pytest.approx(by_loop(sure, right, [1] * 60, bins))


@pytest.mark.parametrize("seed", range(3))
def test_the_error_is_that_of_torchmetrics(seed):
    p, labels = answers(300, 4, seed)
    (ours,) = calibration_error(confidence_of(p), p.argmax(1) == labels)
    theirs = multiclass_calibration_error(
        torch.tensor(p), torch.tensor(labels), num_classes=4, n_bins=15, norm="l1"
    )
    assert ours == pytest.approx(float(theirs), abs=1e-6)


def test_brier_and_log_loss_are_those_of_a_loop():
    p, labels = answers(50, 3)
    weights = np.random.default_rng(0).integers(0, 3, (2, 50)).astype(float)
    for r in range(2):
        w = weights[r]
        squares = [sum((p[i, k] - (labels[i] == k)) ** 2 for k in range(3)) for i in range(50)]
        logs = [-np.log(p[i, labels[i]]) for i in range(50)]
        assert brier_score(p, labels, weights)[r] == pytest.approx(w @ squares / w.sum())
        assert log_loss(p, labels, weights)[r] == pytest.approx(w @ logs / w.sum())
    assert brier_score([[1, 0], [0, 1]], [1, 1])[0] == 1  # of wrong 2, of right 0
    assert brier_score(np.full((5, 4), 0.25), [0, 1, 2, 3, 0])[0] == pytest.approx(0.75)
    assert log_loss([[1.0, 0.0]], [1])[0] == pytest.approx(-np.log(1e-12))


def test_bins_hold_their_upper_edge():
    edges = edges_of([], 5)
    assert bin_numbers([0.0, 0.2, 0.2000001, 0.4, 1.0], edges).tolist() == [0, 0, 1, 1, 4]
    sure = np.random.default_rng(0).random(1000) ** 3
    counts = np.bincount(bin_numbers(sure, edges_of(sure, 10, adaptive=True)), minlength=10)
    assert counts.min() >= 99
    assert counts.max() <= 101
    tied = calibration_error(np.full(40, 0.8), np.r_[np.ones(20), np.zeros(20)], adaptive=True)
    assert tied[0] == pytest.approx(0.3)


def test_a_perfect_model_has_the_error_of_chance_and_a_sure_one_more():
    found = [answers(250, 3, seed) for seed in range(40)]
    errors = [calibration_error(confidence_of(p), p.argmax(1) == y)[0] for p, y in found]
    chance = np.mean([calibration_error_by_chance(confidence_of(p), draws=100) for p, _ in found])
    assert np.mean(errors) == pytest.approx(chance, rel=0.1)
    assert chance > 0.03  # 250 images are few: not zero by far
    p, y = answers(2000, 3)
    sharp = p**3 / (p**3).sum(1, keepdims=True)
    (error,) = calibration_error(confidence_of(sharp), p.argmax(1) == y)
    gap = (confidence_of(sharp) - (p.argmax(1) == y)).mean()
    assert error > 3 * calibration_error_by_chance(confidence_of(sharp))
    assert error >= gap > 0.05


def test_the_interval_lies_around_the_value_and_knows_groups():
    p, y = answers(300, 3, 5)
    sure, right = confidence_of(p), p.argmax(1) == y
    alone = calibration_interval(sure, right, np.arange(300), replicates=400)
    assert 0 <= alone.low < alone.value < alone.high < 0.2
    twice = calibration_interval(
        np.tile(sure, 2), np.tile(right, 2), np.tile(np.arange(300), 2), replicates=400
    )
    assert twice.value == pytest.approx(alone.value)
    assert (twice.low, twice.high) == pytest.approx((alone.low, alone.high))
    one = calibration_interval(sure, right, np.zeros(300), replicates=100)
    assert not one.defined


def test_reliability_counts_every_image_once():
    p, y = answers(200, 3)
    sure, right = confidence_of(p), p.argmax(1) == y
    rows = reliability(sure, right, np.arange(200), edges_of(sure), replicates=200)
    assert sum(n for n, _, _ in rows) == 200
    error = sum(n / 200 * abs(found.value - mean) for n, mean, found in rows if n)
    assert error == pytest.approx(calibration_error(sure, right)[0])
    assert all(np.isnan(mean) and np.isnan(found.value) for n, mean, found in rows if not n)


def test_nothing_to_measure():
    assert np.isnan(calibration_error([], [])[0])
    assert np.isnan(calibration_error_by_chance([]))
