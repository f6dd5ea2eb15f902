"""How well numbers tell a label: against scikit-learn, against chance, and by group."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from tests.audit.pictures import dataset_of, texture

from diascope.audit.datachecks.border_shortcut import border_of
from diascope.audit.datachecks.looking import look, statistics_of
from diascope.audit.datachecks.predictability import PENALTY, fit, graded, predictability

RNG = np.random.default_rng(0)
EMPTY = np.zeros((1, 1, 1), np.uint8)


def labelled(labels, groups):
    return dataset_of([EMPTY] * len(labels), label=list(labels), group=list(groups))


def test_the_classifier_is_that_of_sklearn():
    labels = np.repeat([0, 1, 2], [40, 60, 100])
    numbers = RNG.normal(size=(200, 4)) + labels[:, None] * [1, 0.5, 0, -1]
    ours = fit(np.column_stack([numbers, np.ones(200)]), labels, 3)
    weights = (200 / 3 / np.bincount(labels))[labels]
    theirs = LogisticRegression(C=1 / (200 * PENALTY), tol=1e-8, max_iter=1000)
    theirs.fit(numbers, labels, sample_weight=weights)
    ours = ours - ours.mean(1, keepdims=True)
    assert np.allclose(ours[:-1].T, theirs.coef_, atol=0.01)
    assert np.allclose(ours[-1], theirs.intercept_ - theirs.intercept_.mean(), atol=0.02)


def test_noise_tells_nothing_and_a_signal_its_area():
    labels = np.array(["a", "b"])[np.arange(400) % 2]
    dataset = labelled(labels, map(str, range(400)))
    noise = predictability(dataset, RNG.normal(size=(400, 5)))
    assert noise.auroc.low < 0.5 < noise.auroc.high
    shifted = RNG.normal(size=(400, 1)) + (labels == "b")[:, None]
    told = predictability(dataset, shifted)
    assert told.auroc.value == pytest.approx(0.76, abs=0.05)  # Phi(1 / sqrt 2)
    assert told.auroc.low < told.auroc.value < told.auroc.high
    assert graded(told, {"high": 0.9, "medium": 0.65, "low": 0.6}) == "medium"
    assert graded(noise, {"high": 0.9, "medium": 0.65, "low": 0.6}) is None


def test_what_is_peculiar_to_a_group_tells_nothing_of_others():
    groups = np.repeat(np.arange(60), 5)
    labels = np.array(["a", "b"])[RNG.permutation(60) % 2][groups]
    own = RNG.normal(size=(60, 12))[groups]  # the same numbers for all images of a group
    told = predictability(labelled(labels, groups.astype(str)), own)
    assert told.auroc.low < 0.5
    by_image = predictability(labelled(labels, [""] * 300), own)
    assert by_image.auroc.value > told.auroc.value + 0.1  # groups that are not known do leak


def test_the_class_told_most_easily_is_named():
    labels = np.array(["a", "b", "c"])[np.arange(300) % 3]
    numbers = RNG.normal(size=(300, 2)) + (labels == "c")[:, None] * [5, 0]
    told = predictability(labelled(labels, map(str, range(300))), numbers)
    assert told.easiest == "c"
    assert told.best.value > 0.98
    assert told.auroc.value < 0.9
    assert "'c'" in told.words


def test_too_few_images_or_constant_numbers_are_not_judged():
    labels = ["a", "b"] * 15
    few = labelled(labels, map(str, range(30)))
    assert predictability(few, RNG.normal(size=(30, 2))) is None
    many = labelled(labels * 2, map(str, range(60)))
    assert predictability(many, np.ones((60, 2))) is None
    assert predictability(many, RNG.normal(size=(60, 2))) is not None


def test_statistics_are_those_of_the_pixels():
    image = texture(1, grey=False)
    looked = look(dataset_of([image]), threads=1)
    found = looked.statistics[0]
    assert found.shape == statistics_of([1] * 256, [1] * 768).shape
    for channel in range(3):
        mean, deviation = found[28 + 2 * channel : 30 + 2 * channel]
        assert mean == pytest.approx(image[..., channel].mean() / 255, abs=1e-4)
        assert deviation == pytest.approx(image[..., channel].std() / 255, abs=1e-4)
    assert found[12:28].sum() == pytest.approx(1, abs=1e-5)


def test_the_border_does_not_see_the_middle():
    image = texture(2, side=128)
    changed = image.copy()
    changed[14:-14, 14:-14] = 0
    values = border_of(look(dataset_of([image, changed]), threads=1))
    assert values.shape == (2, 60)
    assert np.allclose(*values, atol=1)
    changed[:6] = 0
    assert not np.allclose(values[0], border_of(look(dataset_of([changed]), threads=1))[0], atol=9)
