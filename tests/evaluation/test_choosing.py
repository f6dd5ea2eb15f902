from __future__ import annotations

import numpy as np
import pytest
import torch

from diascope.evaluation.choosing import choose_epsilon, compare_choices
from diascope.evaluation.measures.sharpness import Gini


def test_the_choice_and_its_gain_by_hand():
    quality = {"1": [0.9, 0.1, 0.5, np.nan], "4": [0.2, 0.8, 0.5, 0.3]}
    localisation = {"1": [0.7, 0.2, 0.4, 0.1], "4": [0.1, 0.9, 0.6, 0.5]}
    found = compare_choices(quality, localisation, ["a", "b", "c", "d"])
    assert found.chosen.tolist() == [0, 1, 0, 1]  # of equal ones the first, NaN never
    assert found.per_image.value == pytest.approx((0.7 + 0.9 + 0.4 + 0.5) / 4)
    assert found.single["1"].value == pytest.approx(1.4 / 4)
    assert found.single["4"].value == pytest.approx(2.1 / 4)
    assert (found.best, found.best_in_hindsight) == ("4", found.single["4"])
    assert found.oracle.value == pytest.approx((0.7 + 0.9 + 0.6 + 0.5) / 4)
    assert found.gain_in_hindsight.value == pytest.approx((2.5 - 2.1) / 4)
    # left out one by one, the others are better at 4, but for image b: 1.2 against 1.2, the first
    assert found.others_best.tolist() == [1, 0, 1, 1]
    assert found.crossfitted.value == pytest.approx((0.1 + 0.2 + 0.6 + 0.5) / 4)
    assert found.gain.value == pytest.approx(found.per_image.value - found.crossfitted.value)


def test_lower_may_be_better():
    quality = {"a": [1.0, 2.0], "b": [2.0, 1.0]}
    found = compare_choices(quality, quality, ["p", "q"], higher_is_better=False)
    assert found.chosen.tolist() == [0, 1]
    assert found.per_image.value == 1.0


def several(count=400, epsilons=4, seed=0):
    """Each image has a best epsilon of its own, and the quality knows it or does not."""
    draw = np.random.default_rng(seed)
    localisation = draw.normal(0.5, 0.1, (epsilons, count))
    localisation[1] += 0.01
    names = [str(e) for e in range(epsilons)]
    groups = np.array([f"g{i // 2}" for i in range(count)])
    knows = localisation + draw.normal(0, 0.02, localisation.shape)
    blind = draw.normal(size=localisation.shape)
    return *(dict(zip(names, v, strict=True)) for v in (localisation, knows, blind)), groups


def test_a_quality_that_knows_gains_and_a_blind_one_does_not():
    localisation, knows, blind, groups = several()
    good = compare_choices(knows, localisation, groups)
    assert good.gain.low > 0.05
    assert good.oracle.value >= good.per_image.value > good.best_in_hindsight.value
    bad = compare_choices(blind, localisation, groups)
    assert bad.gain.low < 0.01
    assert bad.per_image.value == pytest.approx(np.mean(list(localisation.values())), abs=0.02)


def test_the_best_single_epsilon_is_not_found_on_the_images_it_is_judged_on():
    """Pure noise: the best of many in hindsight looks good, from other groups it does not."""
    draw = np.random.default_rng(3)
    values = {str(e): draw.normal(0, 1, 60) for e in range(40)}
    found = compare_choices(values, values, [f"g{i}" for i in range(60)])
    assert found.best_in_hindsight.value > 0.2
    assert abs(found.crossfitted.value) < 0.2


def test_groups_are_not_divided_by_the_folds():
    """A group's images see the epsilon that is best on the other groups alone."""
    groups = np.repeat(["a", "b", "c", "d"], 5)
    localisation = {"1": np.zeros(20), "2": np.zeros(20)}
    localisation["1"][:5] = 1.0  # group a alone would choose 1
    localisation["2"][5:] = 0.1
    found = compare_choices(localisation, localisation, groups, folds=4)
    assert found.others_best.reshape(4, 5).tolist() == [[1] * 5, [0] * 5, [0] * 5, [0] * 5]
    assert found.gain.groups == 4


def test_images_that_are_not_defined_for_every_epsilon_are_left_out():
    quality = {"1": [0.1, np.nan, 0.3, 0.9, 0.2], "2": [0.5, np.nan, 0.1, 0.1, 0.1]}
    localisation = {"1": [0.1, 0.2, np.nan, 0.4, 0.5], "2": [0.3, 0.2, 0.1, 0.2, 0.1]}
    found = compare_choices(quality, localisation, list("abcde"))
    assert found.chosen.tolist() == [1, -1, 0, 0, 0]
    assert found.per_image.images == found.single["1"].images == found.gain.images == 3
    assert found.others_best.tolist()[1:3] == [-1, -1]
    assert found.per_image.value == pytest.approx((0.3 + 0.4 + 0.5) / 3)


def test_maps_and_masks():
    g = torch.Generator().manual_seed(0)
    masks = torch.zeros(20, 12, 12, dtype=torch.bool)
    masks[:, 3:7, 3:7] = True
    noisy = torch.rand(20, 12, 12, generator=g)
    sharp = 0.02 * noisy + masks.float()
    maps = {"0": noisy.clone(), "4": sharp.clone()}
    maps["0"][10:], maps["4"][10:] = sharp[10:], noisy[10:]
    groups = [f"g{i}" for i in range(20)]
    found = choose_epsilon(maps, masks, groups)
    assert found.chosen.tolist() == [1] * 10 + [0] * 10
    assert found.per_image.value == pytest.approx(1.0)
    assert found.gain.low > 0.2
    lower = choose_epsilon(maps, masks, groups, by=LessGini())
    assert (lower.chosen == 1 - found.chosen).all()
    table = found.table.set_index("choice")
    assert table.loc["per image", "localisation"] == found.per_image.value
    assert table.loc["always 4", "images"] == 20


class LessGini(Gini):
    higher_is_better = False


def test_mistakes_are_refused():
    two = {"a": [1.0, 2.0], "b": [2.0, 1.0]}
    for quality, localisation, groups, words in (
        ({"a": [1.0]}, {"a": [1.0]}, ["x"], "two or more"),
        (two, {"a": [1.0, 2.0], "c": [2.0, 1.0]}, ["x", "y"], "two or more"),
        (two, two, ["x", "y", "z"], "3 images"),
        (two, two, ["x", "x"], "two groups"),
        ({"a": [np.nan] * 2, "b": [np.nan] * 2}, two, ["x", "y"], "two groups"),
    ):
        with pytest.raises(ValueError, match=words):
            compare_choices(quality, localisation, groups)
    with pytest.raises(ValueError, match="folds"):
        compare_choices(two, two, ["x", "y"], folds=1)
