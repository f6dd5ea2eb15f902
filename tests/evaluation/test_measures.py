"""The contract of every measure, and of the localisation family, over the registry."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score

from diascope.evaluation.measures import MEASURES, members
from diascope.evaluation.measures.localisation import (
    AveragePrecision,
    MassInside,
    PointingGame,
    dilate,
)
from diascope.evaluation.measures.overlap import AreaOverlap, OtsuOverlap
from diascope.registry import to_settings

LOCALISATION = [*members("localisation").values(), PointingGame(tolerance=2.0)]
family = pytest.mark.parametrize("measure", LOCALISATION, ids=repr)


def case(seed=0, count=6, height=9, width=7, levels=5):
    """Return heat with ties and masks that are neither empty nor full."""
    g = torch.Generator().manual_seed(seed)
    heat = torch.randint(0, levels, (count, height, width), generator=g) / levels
    mask = torch.rand(count, height, width, generator=g) < 0.3
    mask[:, 0, 0], mask[:, -1, -1] = True, False
    heat[:, 1, 1] += 0.01
    return heat, mask


def square(height=8, width=8):
    """Return one mask (1, H, W): the upper left 2 x 2 pixels."""
    mask = torch.zeros(1, height, width, dtype=torch.bool)
    mask[:, :2, :2] = True
    return mask


@pytest.mark.parametrize("name", list(MEASURES))
def test_members_declare_themselves_and_come_back_from_settings(name):
    measure = MEASURES[name]()
    assert dataclasses.is_dataclass(measure)
    with pytest.raises(dataclasses.FrozenInstanceError):
        measure.anything = 1
    low, high = measure.limits
    assert low < high
    assert isinstance(measure.higher_is_better, bool)
    assert measure.family
    assert MEASURES.build(to_settings(measure)) == measure


def test_the_localisation_family():
    names = {"mass_inside", "pointing", "average_precision", "iou_otsu", "iou_area"}
    assert set(members("localisation")) >= names


@family
def test_direction_and_range(measure):
    heat, mask = case()
    low, high = measure.limits
    values = measure(heat, mask)
    assert values.dtype == torch.float32
    assert values.shape == (6,)
    assert ((values >= low) & (values <= high)).all()
    torch.testing.assert_close(measure(mask.float(), mask), torch.ones(6))
    mixed = measure(mask.float() + 0.5 * heat, mask)
    assert measure.higher_is_better
    assert (mixed >= values - 1e-6).all()
    corner = square()
    away = (~dilate(corner, 2)).float() + 0.01 * torch.arange(1, 65).view(1, 8, 8) * ~corner
    away[corner] = torch.tensor([0.001, 0.002, 0.003, 0.004])
    assert measure(away, corner) < 0.7 * measure.chance(corner)


@family
@given(seed=st.integers(0, 1000), count=st.integers(1, 7))
def test_an_image_is_measured_by_itself(measure, seed, count):
    heat, mask = case(seed, count)
    heat[0], mask[-1] = 1e6 * heat[0], False
    whole = measure(heat, mask)
    single = torch.cat([measure(heat[i : i + 1], mask[i : i + 1]) for i in range(count)])
    torch.testing.assert_close(whole, single, equal_nan=True, rtol=1e-6, atol=0)
    order = torch.randperm(count)
    torch.testing.assert_close(measure(heat[order], mask[order]), whole[order], equal_nan=True)


@family
def test_scale_does_not_matter(measure):
    heat, mask = case()
    expected = measure(heat, mask)
    for factor in (1e-30, 1e-3, 1e38):
        torch.testing.assert_close(measure(heat * factor, mask), expected)
    torch.testing.assert_close(measure(heat.double(), mask), expected)


@family
def test_what_is_not_defined(measure):
    heat, mask = case(count=5)
    mask[0], mask[1] = False, True
    heat[2, 3, 3] = torch.nan
    heat[3, 3, 3] = torch.inf
    values = measure(heat, mask)
    assert values.isnan().tolist() == [True, True, True, True, False]
    assert measure.chance(mask).isnan().tolist() == [True, True, False, False, False]


@family
def test_a_map_that_is_the_same_everywhere_is_at_chance(measure):
    _, mask = case()
    torch.testing.assert_close(measure(torch.full(mask.shape, 0.3), mask), measure.chance(mask))


BY_ORDER = [AveragePrecision(), PointingGame(), OtsuOverlap(), AreaOverlap()]


@pytest.mark.parametrize("measure", BY_ORDER, ids=repr)
def test_an_empty_map_ranks_nothing_and_is_at_chance(measure):
    _, mask = case()
    chance = measure.chance(mask)
    torch.testing.assert_close(measure(torch.zeros(mask.shape), mask), chance)
    torch.testing.assert_close(measure(-torch.zeros(mask.shape), mask), chance)
    area = mask.float().mean((1, 2))
    torch.testing.assert_close(chance, area / (2 - area) if measure == AreaOverlap() else area)


def test_an_empty_map_has_no_mass():
    heat, mask = case()
    heat[1] = 0
    assert MassInside()(heat, mask).isnan().tolist() == [False, True, *[False] * 4]


@family
def test_wrong_input_is_refused(measure):
    heat, mask = case()
    with pytest.raises(ValueError, match="negative"):
        measure(heat - 0.5, mask)
    with pytest.raises(ValueError, match="bool"):
        measure(heat, mask.float())
    with pytest.raises(ValueError, match=r"\(6, 9, 7\)"):
        measure(heat, mask[:, :5])
    with pytest.raises(ValueError, match="expected"):
        measure(heat[0], mask[0])


@family
def test_input_is_left_alone_and_no_gradient_is_kept(measure):
    heat, mask = case()
    before, outline = heat.clone(), mask.clone()
    assert not measure(heat.requires_grad_(), mask).requires_grad
    assert torch.equal(heat, before)
    assert torch.equal(mask, outline)


def test_mass_by_hand():
    heat = torch.zeros(1, 8, 8)
    heat[0, 0, 0], heat[0, 1, 1], heat[0, 5, 5] = 1.0, 2.0, 5.0
    assert MassInside()(heat, square()).item() == pytest.approx(3 / 8)


def test_pointing_by_hand():
    heat = torch.zeros(1, 8, 8)
    heat[0, 0, 1] = 1.0
    assert PointingGame()(heat, square()).item() == 1.0
    heat[0, 4, 1] = 1.0
    assert PointingGame()(heat, square()).item() == 0.5
    heat[0, 7, 7] = 1.5
    assert PointingGame()(heat, square()).item() == 0.0


def test_tolerance_is_a_euclidean_distance_to_the_mask():
    heat = torch.zeros(1, 8, 8)
    heat[0, 3, 3] = 1.0  # the nearest pixel of the mask is (1, 1), the square root of 8 away
    assert PointingGame(tolerance=2.8)(heat, square()).item() == 0.0
    assert PointingGame(tolerance=2.9)(heat, square()).item() == 1.0
    with pytest.raises(ValueError, match="negative"):
        PointingGame(tolerance=-1.0)


@given(st.integers(0, 1000), st.floats(0, 12))
def test_dilation_equals_the_distances(seed, radius):
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(3, 6, 9, generator=g) < 0.08
    points = torch.cartesian_prod(torch.arange(6), torch.arange(9)).double()
    near = torch.cdist(points, points) ** 2 <= radius**2 + 1e-9
    expected = (near[None] & mask.flatten(1)[:, None]).any(2).view_as(mask)
    gap = (torch.cdist(points, points) - radius).abs().min()
    if gap > 1e-6 or radius == int(radius):
        assert torch.equal(dilate(mask, radius), expected)


def test_average_precision_by_hand():
    mask = torch.tensor([[[True, False, True, False]]])
    heat = torch.tensor([[[0.9, 0.8, 0.7, 0.1]]])
    assert AveragePrecision()(heat, mask).item() == pytest.approx((1 / 1 + 2 / 3) / 2)
    assert AveragePrecision()(1 - heat, mask).item() == pytest.approx((1 / 2 + 2 / 4) / 2)
    tied = torch.tensor([[[0.9, 0.9, 0.7, 0.1]]])
    assert AveragePrecision()(tied, mask).item() == pytest.approx((1 / 2 + 2 / 3) / 2)


@given(st.integers(0, 10_000), st.integers(1, 60), st.sampled_from([1.0, 1e-38, 1e38]))
def test_average_precision_equals_sklearn(seed, levels, scale):
    heat, mask = case(seed, count=3, levels=levels)
    heat = heat * scale
    expected = [
        average_precision_score(m.flatten().numpy(), h.flatten().numpy())
        for h, m in zip(heat, mask, strict=True)
    ]
    np.testing.assert_allclose(AveragePrecision()(heat, mask).numpy(), expected, rtol=2e-6)


def test_average_precision_of_a_large_map_equals_sklearn():
    g = torch.Generator().manual_seed(0)
    heat, mask = torch.rand(1, 400, 400, generator=g), torch.zeros(1, 400, 400, dtype=torch.bool)
    mask[:, 100:250, 100:300] = True
    heat[mask] += 0.2
    expected = average_precision_score(mask.flatten().numpy(), heat.flatten().numpy())
    assert AveragePrecision()(heat, mask).item() == pytest.approx(expected, rel=1e-6)


def test_sorting_on_a_device_equals_sorting_on_the_cpu(monkeypatch):
    from diascope.evaluation.measures import maps, ranks

    heat, mask = case(count=20)
    expected = AveragePrecision()(heat, mask)

    monkeypatch.setattr(maps, "order", ranks._order_by_torch)
    torch.testing.assert_close(AveragePrecision()(heat, mask), expected, rtol=1e-6, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@family
def test_a_gpu_measures_the_same(measure):
    heat, mask = case()
    found = measure(heat.cuda(), mask)
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), measure(heat, mask))
