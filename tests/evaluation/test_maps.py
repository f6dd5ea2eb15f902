"""One table of all measures, and models compared by it."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pandas as pd
import pytest
import torch

from diascope.data import load_pixels, load_region, open_dataset
from diascope.data.phantom import generate
from diascope.errors import UserError
from diascope.evaluation import (
    bootstrap_difference,
    bootstrap_mean,
    compare_maps,
    localisation_table,
    maps_table,
)
from diascope.evaluation.measures import maps as maps_module
from diascope.evaluation.measures import members
from diascope.evaluation.measures import ranks as ranks_module
from diascope.evaluation.measures.ranks import order


def case(count=5, side=24):
    g = torch.Generator().manual_seed(0)
    heat = torch.rand(count, side, side, generator=g)
    x = torch.rand(count, 3, side, side, generator=g)
    masks = torch.zeros(count, side, side, dtype=torch.bool)
    masks[:, 5:15, 8:20] = True
    masks[2] = False
    heat[3, 0, 0] = torch.nan
    return heat, x, masks


def test_the_table_holds_what_each_measure_says():
    heat, x, masks = case()
    other = heat.flip(0).nan_to_num(0.5)
    hairs = torch.zeros_like(masks)
    hairs[:4, :, 7] = True
    table = maps_table(
        heat, x=x, masks=masks, regions={"hair": hairs}, others={"seed1": other, "seed2": heat}
    )
    expected = {n: m(heat) for n, m in members("sharpness").items()}
    expected |= {n: m(heat, x, masks) for n, m in members("colour").items()}
    for name in ("seed1", "seed2"):
        beside = other if name == "seed1" else heat
        agreement = members("agreement").items()
        expected |= {f"{name}_{n}": m(heat, beside) for n, m in agreement}
    inside = members("localisation")["mass_inside"]
    expected |= {"hair_share": inside(heat, hairs), "hair_share_chance": inside.chance(hairs)}
    localisation = localisation_table(heat, masks)
    assert set(table) == set(expected) | set(localisation)
    for name, column in table.items():
        wanted = localisation[name] if name in localisation else expected[name].numpy()
        assert column.dtype == np.float32
        np.testing.assert_allclose(column, wanted, rtol=1e-6, atol=1e-7, err_msg=name)
    assert np.isnan(table["hair_share"]).tolist() == [False, False, False, True, True]
    assert np.isnan(table["iou_otsu"]).tolist() == [False, False, True, True, False]


def test_only_what_can_be_measured_is_in_the_table():
    heat, x, masks = case()
    assert set(maps_table(heat)) == set(members("sharpness"))
    assert set(maps_table(heat, x=x)) == set(members("sharpness"))
    assert "colour_variation" not in maps_table(heat, masks=masks)


def test_chunks_do_not_matter(monkeypatch):
    heat, x, masks = case()
    options = {"x": x, "masks": masks, "regions": {"hair": masks}, "others": {"noise": heat + 1}}
    whole = maps_table(heat, **options)
    monkeypatch.setitem(maps_module._PIXELS, "cpu", 2 * 24 * 24)
    for name, column in maps_table(heat, **options).items():
        np.testing.assert_allclose(column, whole[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_no_images_have_all_columns():
    heat, x, masks = case()
    options = {"x": x, "masks": masks, "regions": {"hair": masks}, "others": {"noise": heat}}
    whole = maps_table(heat, **options)
    empty = {
        k: {n: t[:0] for n, t in v.items()} if isinstance(v, dict) else v[:0]
        for k, v in options.items()
    }
    none = maps_table(heat[:0], **empty)
    assert list(none) == list(whole)
    assert all(column.shape == (0,) for column in none.values())


def test_a_map_is_sorted_once_for_all_measures(monkeypatch):
    calls = []

    def counted(rows):
        calls.append(rows)
        return order(rows)

    monkeypatch.setattr(maps_module, "order", counted)
    monkeypatch.setattr(ranks_module, "order", counted)
    heat, _, masks = case()  # colour ranks the mask's pixels alone
    maps_table(heat, masks=masks, others={"other": 1 - heat})
    assert [len(rows) for rows in calls] == [5, 5, 5]
    assert torch.equal(calls[0], maps_module.Maps(heat).heat.flatten(1))
    assert not any(torch.equal(*two) for two in combinations(calls, 2))


def test_tensors_of_other_images_are_refused():
    heat, x, masks = case()
    for options in ({"masks": masks[:4]}, {"others": {"a": torch.cat([heat, heat])}}, {"x": x[:2]}):
        with pytest.raises(ValueError, match="5 maps, but"):
            maps_table(heat, **options)


def test_the_share_on_hairs_of_the_phantom(tmp_path):
    dataset = open_dataset("phantom", images=30, size=32, seed=1)
    pixels, hairs = load_pixels(dataset, 32), torch.from_numpy(load_region(dataset, "hair", 32))
    on_hairs = hairs.float() + 0.01
    table = maps_table(on_hairs, masks=pixels.m(), regions={"hair": hairs})
    hairy = hairs.flatten(1).any(1).numpy()
    assert 5 < hairy.sum() < 30
    assert (np.isnan(table["hair_share"]) == ~hairy).all()
    np.testing.assert_array_equal(hairs, generate(30, size=32, seed=1).hairs)
    share = hairs.float().mean((1, 2)).numpy()[hairy]
    expected = 1.01 * share / (share + 0.01)
    np.testing.assert_allclose(table["hair_share"][hairy], expected, rtol=1e-5)
    np.testing.assert_allclose(table["hair_share_chance"][hairy], share, rtol=1e-6)


def tables(count=60):
    """Two models of which the second gains where both are right; the first lacks two images."""
    g = np.random.default_rng(0)
    base = g.random(count)
    first = pd.DataFrame(
        {
            "id": np.arange(count) * 7,
            "group": [f"p{k // 2}" for k in range(count)],
            "correct": g.random(count) < 0.7,
            "gini": base,
            "note": "x",
        }
    )
    second = first.assign(correct=g.random(count) < 0.8)
    both = first.correct & second.correct
    second["gini"] = base + np.where(both, 0.2, -0.1) + 0.01 * g.random(count)
    first.loc[:1, "gini"] = np.nan
    return {"plain": first, "robust": second}


def test_models_are_compared_over_all_images_and_over_those_all_get_right():
    given = tables()
    shuffled = {**given, "robust": given["robust"].sample(frac=1, random_state=0)}
    found = compare_maps(shuffled, replicates=200, seed=3)
    assert list(found.measure.unique()) == ["gini"]
    assert list(zip(found.subset, found.model, strict=True)) == [
        (subset, model) for subset in ("all", "all_correct") for model in ("plain", "robust")
    ]
    both = (given["plain"].correct & given["robust"].correct).to_numpy()
    for subset, rows in (("all", np.ones_like(both)), ("all_correct", both)):
        ours, theirs = (given[m].gini[rows] for m in ("robust", "plain"))
        groups = given["plain"].group[rows]
        row = found[(found.subset == subset) & (found.model == "robust")].iloc[0]
        mean = bootstrap_mean(ours, groups, replicates=200, seed=3)
        apart = bootstrap_difference(ours, theirs, groups, replicates=200, seed=3)
        assert (row.value, row.low, row.high) == (mean.value, mean.low, mean.high)
        assert (row.images, row.groups) == (rows.sum(), groups.nunique())
        assert row.difference == apart.value
        assert (row.difference_low, row.difference_high) == (apart.low, apart.high)
    right = found[found.subset == "all_correct"].iloc[1]
    assert 0.2 < right.difference_low < right.difference_high < 0.21
    assert found[found.model == "plain"].difference.isna().all()
    assert found[(found.model == "plain") & (found.subset == "all")].images.item() == 58


def test_measures_and_the_reference_can_be_chosen():
    given = tables()
    for table in given.values():
        table["hair_share"] = 0.5
    found = compare_maps(given, ["hair_share", "gini"], reference="robust", replicates=20)
    assert list(found.measure.unique()) == ["hair_share", "gini"]
    assert found[found.model == "robust"].difference.isna().all()
    assert (found[(found.measure == "gini") & (found.model == "plain")].difference < 0).any()


def test_no_image_that_all_get_right_is_undefined():
    given = tables()
    given["robust"]["correct"] = ~given["plain"]["correct"]
    found = compare_maps(given, replicates=20)
    none = found[found.subset == "all_correct"]
    assert none.value.isna().all()
    assert (none.images == 0).all()


def test_wrong_tables_are_one_line():
    given = tables()
    cases = [
        ({}, {}, "no tables"),
        (given, {"reference": "other"}, "no table of the model 'other'"),
        (given, {"measures": ["entropy"]}, "the table of 'plain' has no column 'entropy'"),
        ({**given, "robust": given["robust"].iloc[1:]}, {}, "not of the same images"),
        ({**given, "robust": given["robust"].assign(id=0)}, {}, "not of the same images"),
        ({**given, "robust": given["robust"].drop(columns="correct")}, {}, "no column 'correct'"),
    ]
    for wrong, options, words in cases:
        with pytest.raises(UserError, match=words):
            compare_maps(wrong, **options)
