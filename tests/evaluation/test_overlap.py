"""Overlap of the mask and the region that the map outlines, against loops and by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from diascope.evaluation.measures.maps import Maps
from diascope.evaluation.measures.overlap import AreaOverlap, OtsuOverlap, _otsu

FEW = settings(deadline=None, max_examples=30)


def row(*values):
    return torch.tensor([[values]], dtype=torch.float32)


def mask(*values):
    return torch.tensor([[values]], dtype=torch.bool)


def drawn(seed, levels, count=3, height=7, width=5):
    g = torch.Generator().manual_seed(seed)
    heat = torch.randint(0, levels + 1, (count, height, width), generator=g).float() ** 2
    inside = torch.rand(count, height, width, generator=g) < 0.3
    inside[:, 0, 0], inside[:, -1, -1] = True, False
    return heat, inside


def test_otsu_by_hand():
    # values 0 0 1 | 6 8: between-class variances are greatest with two pixels above
    heat = row(0, 6, 1, 8, 0)
    assert _otsu(Maps(heat, heat > 0)).tolist() == [2]
    assert OtsuOverlap()(heat, mask(0, 1, 0, 1, 0)).item() == 1.0
    assert OtsuOverlap()(heat, mask(1, 1, 0, 0, 0)).item() == pytest.approx(1 / 3)
    assert OtsuOverlap()(heat, mask(1, 0, 1, 0, 1)).item() == 0.0


def test_otsu_of_two_equally_good_thresholds_takes_the_higher():
    heat = row(0, 1, 2)
    for factor in (1.0, 0.1, 1 / 3, 1e-20):
        assert _otsu(Maps(heat * factor, heat > 0)).tolist() == [1]


def test_a_map_that_is_the_same_everywhere_outlines_the_whole_image():
    for value in (0.0, 0.7):
        heat = torch.full((1, 1, 5), value)
        assert OtsuOverlap()(heat, mask(1, 1, 0, 0, 0)).item() == pytest.approx(2 / 5)
        assert AreaOverlap()(heat, mask(1, 1, 0, 0, 0)).item() == pytest.approx(0.4 / 1.6)


@FEW
@given(st.integers(0, 1000), st.sampled_from([1, 2, 5, 30, 1000]))
def test_otsu_equals_a_loop_over_thresholds(seed, levels):
    heat, inside = drawn(seed, levels)
    expected = []
    for h, m in zip(heat.double().numpy(), inside.numpy(), strict=True):
        best, region = -1.0, np.ones_like(m)
        for threshold in sorted(set(h.ravel()), reverse=True)[:-1]:
            above = h >= threshold
            share = above.mean()
            between = share * (1 - share) * (h[above].mean() - h[~above].mean()) ** 2
            if between > best * (1 + 1e-9):
                best, region = between, above
        expected.append((region & m).sum() / (region | m).sum())
    np.testing.assert_allclose(OtsuOverlap()(heat, inside).numpy(), expected, rtol=1e-6)


def test_otsu_equals_a_histogram_of_few_values():
    """The threshold of a histogram with a bin a value, as in Otsu's paper."""
    heat, inside = drawn(3, 15, height=40, width=40)
    for k in range(3):
        values, counts = np.unique(heat[k].numpy(), return_counts=True)
        p = counts / counts.sum()
        omega, mu = np.cumsum(p), np.cumsum(p * values)
        with np.errstate(divide="ignore", invalid="ignore"):
            between = (mu[-1] * omega - mu) ** 2 / (omega * (1 - omega))
        threshold = values[np.nanargmax(between[:-1])]
        region = heat[k].numpy() > threshold
        m = inside[k].numpy()
        expected = (region & m).sum() / (region | m).sum()
        found = OtsuOverlap()(heat[k : k + 1], inside[k : k + 1]).item()
        assert found == pytest.approx(expected, rel=1e-6)


def test_area_by_hand():
    inside = mask(1, 1, 0, 0, 0)
    assert AreaOverlap()(row(9, 8, 1, 2, 3), inside).item() == 1.0
    assert AreaOverlap()(row(9, 1, 8, 2, 3), inside).item() == pytest.approx(1 / 3)
    assert AreaOverlap()(row(1, 2, 8, 9, 3), inside).item() == 0.0
    # 9 is taken, and half of each 8: 1.5 of the mask's 2, in a union of 2.5
    assert AreaOverlap()(row(9, 8, 8, 2, 3), inside).item() == pytest.approx(1.5 / 2.5)


@FEW
@given(st.integers(0, 1000), st.sampled_from([0, 1, 2, 5, 1000]))
def test_area_is_the_share_that_fits_of_equal_values(seed, levels):
    heat, inside = drawn(seed, levels)
    expected = []
    for h, m in zip(heat.numpy(), inside.numpy(), strict=True):
        area = m.sum()
        edge = np.sort(h.ravel())[::-1][area - 1]
        weight = (h > edge) + (h == edge) * (area - (h > edge).sum()) / (h == edge).sum()
        assert weight.sum() == pytest.approx(area)
        expected.append(np.minimum(weight, m).sum() / np.maximum(weight, m).sum())
    np.testing.assert_allclose(AreaOverlap()(heat, inside).numpy(), expected, rtol=1e-5)


def test_chance_of_the_area_is_what_random_maps_have():
    g = torch.Generator().manual_seed(0)
    inside = torch.zeros(400, 30, 30, dtype=torch.bool)
    inside[:, 5:17, 8:20] = True
    values = AreaOverlap()(torch.rand(inside.shape, generator=g), inside)
    chance = AreaOverlap().chance(inside)
    assert chance[0].item() == pytest.approx(0.16 / 1.84)
    spread = values.std().item() / 20
    assert values.mean().item() == pytest.approx(chance[0].item(), abs=4 * spread + 1 / 144)


def test_no_blind_region_expects_more_than_otsus_chance():
    g = torch.Generator().manual_seed(0)
    inside = torch.zeros(200, 30, 30, dtype=torch.bool)
    inside[:, 5:17, 8:20] = True
    chance = OtsuOverlap().chance(inside)[0].item()
    assert chance == pytest.approx(0.16)
    noise = torch.rand(inside.shape, generator=g)
    half = OtsuOverlap()(noise, inside).mean().item()
    assert half == pytest.approx(0.5 * 0.16 / (0.5 + 0.16 - 0.5 * 0.16), abs=0.01)
    assert half < chance
