from __future__ import annotations

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from diascope.evaluation import resampling
from diascope.evaluation.resampling import group_codes, resample_weights
from diascope.evaluation.statistics import (
    Interval,
    bootstrap_curve,
    bootstrap_curve_difference,
    bootstrap_difference,
    bootstrap_independent,
    bootstrap_mean,
    bootstrap_p_value,
    bootstrap_statistic,
    bootstrap_statistics,
)


def lesions(rng, groups, size=5, between=1.0, within=0.2):
    """Values of `groups` lesions with `size` much alike images each; their mean is zero."""
    values = rng.normal(0, between, (groups, 1)) + rng.normal(0, within, (groups, size))
    return values.ravel(), np.repeat(np.arange(groups), size)


def test_clustered_interval_covers_the_truth_and_the_naive_one_does_not():
    clustered = naive = 0
    for simulation in range(200):
        rng = np.random.default_rng(simulation)
        values, groups = lesions(rng, groups=40)
        own = np.arange(len(values))
        clustered += not bootstrap_mean(values, groups, replicates=400).excludes(0)
        naive += not bootstrap_mean(values, own, replicates=400).excludes(0)
    assert 176 <= clustered <= 198  # 88% to 99%
    assert naive < 140  # treating 5 images of a lesion as 5 lesions


def test_width_is_that_of_the_mean_of_groups():
    values, groups = lesions(np.random.default_rng(3), groups=300, within=0.0)
    found = bootstrap_mean(values, groups)
    expected = 2 * 1.96 * values[::5].std() / np.sqrt(300)
    assert found.high - found.low == pytest.approx(expected, rel=0.08)
    assert found.value == pytest.approx(values.mean())
    assert (found.images, found.groups) == (1500, 300)


def test_weights_draw_whole_groups_as_many_as_there_are():
    groups = np.array(["b", "a", "b", "c", "a", "b"])
    weights = resample_weights(groups, replicates=500, seed=1)
    assert weights.shape == (500, 6)
    np.testing.assert_array_equal(weights[:, 0], weights[:, 2])
    np.testing.assert_array_equal(weights[:, 1], weights[:, 4])
    np.testing.assert_array_equal(weights[:, [0, 1, 3]].sum(1), 3)
    assert weights[:, 3].mean() == pytest.approx(1, abs=0.15)
    assert (weights[:, 3] == 0).mean() == pytest.approx((2 / 3) ** 3, abs=0.08)


def test_weights_depend_on_the_seed_and_not_on_chunks_or_order(monkeypatch):
    groups = np.random.default_rng(0).integers(0, 30, 80)
    whole = resample_weights(groups, replicates=101, seed=5)
    assert (whole != resample_weights(groups, replicates=101, seed=6)).any()
    order = np.random.default_rng(1).permutation(80)
    np.testing.assert_array_equal(resample_weights(groups[order], 101, 5), whole[:, order])
    monkeypatch.setattr(resampling, "_CHUNK", 7 * 80)
    np.testing.assert_array_equal(resample_weights(groups, replicates=101, seed=5), whole)


def test_means_equal_those_of_the_weights():
    rng = np.random.default_rng(2)
    values, groups = rng.normal(size=60), rng.integers(0, 20, 60)
    weights = resample_weights(groups, seed=4).astype(float)
    means = weights @ values / weights.sum(1)
    found = bootstrap_mean(values, groups, seed=4)
    np.testing.assert_allclose([found.low, found.high], np.quantile(means, [0.025, 0.975]))
    again = bootstrap_statistic(lambda w: w @ values / w.sum(1), groups, seed=4)
    np.testing.assert_allclose([again.low, again.high], [found.low, found.high])
    assert again.value == pytest.approx(found.value)
    pair = bootstrap_statistics(
        lambda w: np.stack([w @ values / w.sum(1), w.sum(1)], axis=1), groups, seed=4
    )
    assert pair[0] == again
    assert pair[1].value == 60


def test_unknown_groups_are_each_their_own():
    codes, count = group_codes(["x", "", "x", ""])
    assert count == 3
    assert codes[0] == codes[2]
    assert len(set(codes.tolist())) == 3
    assert group_codes(pd.Series(["", None, "x"], dtype="str"))[1] == 3
    assert group_codes(np.array([7, 7, 8]))[1] == 2


def test_undefined_images_leave_numerator_and_denominator():
    values = np.array([1.0, np.nan, 3.0, np.nan, 5.0])
    groups = np.array([0, 0, 1, 2, 3])
    found = bootstrap_mean(values, groups)
    kept = ~np.isnan(values)
    assert found.value == 3.0
    assert (found.images, found.groups) == (3, 3)
    assert found == bootstrap_mean(values[kept], groups[kept])


@pytest.mark.parametrize(
    ("values", "groups"),
    [([], []), ([np.nan, np.nan], [0, 1]), ([1.0, 2.0], ["a", "a"]), ([1.0, np.nan], [0, 1])],
)
def test_less_than_two_groups_give_no_interval(values, groups):
    found = bootstrap_mean(values, groups, proportion=True)
    assert np.isnan(found.low)
    assert np.isnan(found.high)
    assert not found.defined
    assert not found.excludes(0.0)
    assert np.isnan(bootstrap_p_value(values, values, groups))
    assert "undefined" in str(found)


def test_statistics_of_one_group_or_none_have_no_interval():
    assert not bootstrap_statistic(lambda w: w.sum(1), ["a", "a"]).defined
    assert not bootstrap_statistic(lambda w: w.sum(1), []).defined


def test_a_statistic_undefined_in_most_replicates_has_no_limits():
    def rare(weights):
        return np.where(weights[:, 0] >= 2, 1.0, np.nan)  # in 26% of the replicates

    assert not bootstrap_statistic(rare, np.arange(10)).defined


def test_paired_difference_is_sharper_than_its_parts():
    rng = np.random.default_rng(0)
    groups = np.repeat(np.arange(100), 2)
    b = rng.normal(0, 1, 200)
    a = b + 0.1 + rng.normal(0, 0.05, 200)
    found = bootstrap_difference(a, b, groups)
    assert found.value == pytest.approx(0.1, abs=0.02)
    assert found.excludes(0.0)
    assert not bootstrap_mean(a, groups).excludes(bootstrap_mean(b, groups).value)
    assert bootstrap_p_value(a, b, groups) == pytest.approx(2 / 2001)
    mirrored = bootstrap_difference(b, a, groups)
    np.testing.assert_allclose([mirrored.low, mirrored.high], [-found.high, -found.low])


def test_paired_difference_uses_images_defined_in_both():
    a, b = np.array([1.0, np.nan, 3.0, 4.0]), np.array([0.0, 9.0, np.nan, 2.0])
    found = bootstrap_difference(a, b, np.arange(4))
    assert found.value == pytest.approx(1.5)
    assert found.images == 2


@given(st.integers(0, 10_000), st.floats(-0.5, 0.5))
def test_p_value_agrees_with_the_interval(seed, shift):
    rng = np.random.default_rng(seed)
    a, groups = rng.normal(shift, 1, 60), rng.integers(0, 15, 60)
    zero = np.zeros(60)
    p = bootstrap_p_value(a, zero, groups, replicates=500)
    assert 0 < p <= 1
    if abs(p - 0.05) > 0.01:
        excluded = bootstrap_difference(a, zero, groups, replicates=500).excludes(0.0)
        assert excluded == (p < 0.05)


def test_p_value_of_equal_models_is_one():
    assert bootstrap_p_value(np.ones(9), np.ones(9), np.arange(9)) == 1.0


def test_curves_share_resamples_and_equal_single_columns():
    rng = np.random.default_rng(0)
    levels, groups = rng.random((90, 1)), rng.integers(0, 30, 90)
    correct = levels > np.linspace(0.1, 0.9, 4)
    curve = bootstrap_curve(correct, groups, seed=7)
    assert curve[2] == bootstrap_mean(correct[:, 2], groups, seed=7)
    assert all(a.value >= b.value for a, b in pairwise(curve))
    assert all(a.high >= b.high for a, b in pairwise(curve))
    other = correct ^ (rng.random(correct.shape) < 0.1)
    gap = bootstrap_curve_difference(correct, other, groups, seed=7)
    single = bootstrap_difference(correct[:, 1], other[:, 1], groups, seed=7)
    np.testing.assert_allclose([gap[1].low, gap[1].high], [single.low, single.high])


def test_unanimous_proportions_are_not_certain():
    none, every = bootstrap_curve(np.array([[False, True]] * 50), np.arange(50))
    assert (none.value, none.low) == (0.0, 0.0)
    assert none.high == pytest.approx(0.0711, abs=1e-4)  # Clopper and Pearson, 0 of 50
    assert (every.low, every.high) == (pytest.approx(1 - none.high), 1.0)
    certain = bootstrap_difference(np.ones(50), np.zeros(50), np.arange(50))
    assert (certain.low, certain.high) == (1.0, 1.0)


def test_models_that_agree_on_every_image_are_not_certainly_alike():
    right = np.arange(50) % 3 > 0
    limit = 1 - 0.025 ** (1 / 50)  # 0.0711: Clopper and Pearson, 0 of 50
    same = bootstrap_difference(right, right, np.arange(50), proportion=True)
    assert (same.value, same.low, same.high) == (0, pytest.approx(-limit), pytest.approx(limit))
    pairs = bootstrap_difference(right, right, np.arange(50) // 2, proportion=True)
    assert pairs.high == pytest.approx(1 - 0.025 ** (1 / 25))  # of 25 patients
    apart = bootstrap_difference(np.ones(50), np.zeros(50), np.arange(50), proportion=True)
    assert (apart.low, apart.high) == (pytest.approx(1 - 2 * limit), 1)  # both ways may be unseen
    kept = np.where(np.arange(50) < 40, 0.0, np.nan)
    some = bootstrap_difference(kept, np.zeros(50), np.arange(50), proportion=True)
    assert some.high == pytest.approx(1 - 0.025 ** (1 / 40))
    one = right.copy()
    one[0] = ~one[0]
    seen = bootstrap_difference(one, right, np.arange(50), proportion=True)
    assert seen == bootstrap_difference(one, right, np.arange(50))  # else the bootstrap tells
    first, second = bootstrap_curve_difference(
        np.column_stack([right, one]), np.column_stack([right, right]), np.arange(50)
    )
    assert (first.low, first.high) == (same.low, same.high)
    assert (second.low, second.high) == (seen.low, seen.high)
    alike = bootstrap_difference(np.full(50, 0.3), np.full(50, 0.3), np.arange(50))
    assert (alike.low, alike.high) == (0, 0)  # of what is no share nothing is known


def test_limits_of_a_rare_disagreement_cover_it():
    covered, share, groups = 0, 0.02, np.arange(60)
    for simulation in range(300):
        rng = np.random.default_rng(simulation)
        right = rng.random(60) < 0.8
        other = right & (rng.random(60) >= share)  # it loses what the first has, at times
        found = bootstrap_difference(right, other, groups, replicates=200, proportion=True)
        covered += not found.excludes(0.8 * share)
    assert covered >= 270  # without the limits, the four in ten that agree would all miss it


@given(st.integers(0, 1000), st.integers(2, 12), st.integers(1, 40))
def test_limits_enclose_the_value_of_bounded_data_and_ignore_order(seed, groups, images):
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, groups, images)
    values = rng.random(images)
    found = bootstrap_mean(values, codes, replicates=300)
    order = rng.permutation(images)
    again = bootstrap_mean(values[order], codes[order], replicates=300)
    if found.defined:
        assert 0 <= found.low <= found.high <= 1
        np.testing.assert_allclose([again.low, again.high], [found.low, found.high], atol=1e-12)
    else:
        assert len(set(codes.tolist())) < 2


def test_lengths_must_match():
    with pytest.raises(ValueError, match="3 images, but 2 groups"):
        bootstrap_mean([1, 2, 3], [0, 1])
    with pytest.raises(ValueError, match="pair"):
        bootstrap_difference([1, 2, 3], [1, 2], [0, 1, 2])


def test_interval_prints():
    interval = Interval(0.70149, 0.65, 0.75)
    assert str(interval) == "0.701 [0.650, 0.750]"
    assert f"{interval:.1%}" == "70.1% [65.0%, 75.0%]"
    assert f"{Interval(0.5, np.nan, np.nan):.1f}" == "0.5 [undefined]"
    assert str(Interval(np.nan, np.nan, np.nan)) == "undefined"
    assert interval.excludes(0.6)
    assert not interval.excludes(0.7)


def test_independent_samples_differ_by_the_spread_of_both():
    rng = np.random.default_rng(0)
    here, there = rng.random(400) < 0.9, rng.random(300) < 0.6

    def mean(values):
        return lambda w: (w @ values.astype(float)) / w.sum(1)

    (found,) = bootstrap_independent(
        mean(here), np.arange(400), mean(there), np.arange(300), replicates=2000
    )
    assert found.value == pytest.approx(here.mean() - there.mean())
    spread = np.sqrt(here.var() / 400 + there.var() / 300)
    assert found.low == pytest.approx(found.value - 1.96 * spread, abs=0.01)
    assert found.high == pytest.approx(found.value + 1.96 * spread, abs=0.01)
    assert (found.images, found.groups) == (700, 700)
    (alike,) = bootstrap_independent(
        mean(here), np.arange(400), mean(here), np.arange(400), replicates=500
    )
    assert alike.low < 0 < alike.high  # the same images, and yet not the same resamples
    (clumped,) = bootstrap_independent(
        mean(here), np.arange(400) // 40, mean(there), np.zeros(300), replicates=200
    )
    assert clumped.value == found.value
    assert not clumped.defined
    assert np.isnan(bootstrap_independent(mean(here), np.arange(400), mean(there[:0]), [])[0].value)
