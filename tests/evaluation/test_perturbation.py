from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from diascope.evaluation.measures import members
from diascope.evaluation.measures.perturbation import EnergyInside, LevelRange, scaled
from diascope.evaluation.perturbation import (
    contrast,
    energy_inside,
    perturbation_pictures,
    perturbation_table,
)


def corner(count=1, side=8):
    """Masks whose upper left quarter of each side is inside: a sixteenth of the area."""
    mask = torch.zeros(count, side, side, dtype=torch.bool)
    mask[:, : side // 4, : side // 4] = True
    return mask


def noise(count=4, channels=3, side=8, seed=0):
    return torch.randn(count, channels, side, side, generator=torch.Generator().manual_seed(seed))


def test_energy_counts_squares_over_all_channels():
    delta, mask = torch.zeros(3, 3, 8, 8), corner(3)
    delta[0, 0, 0, 0], delta[0, 2, 7, 7] = -2.0, 1.0  # 4 inside, 1 outside
    delta[1, :, 1, 1] = 0.1  # all of it inside
    delta[2, :, 4:, :] = 0.3  # all of it outside
    torch.testing.assert_close(energy_inside(delta, mask), torch.tensor([0.8, 1.0, 0.0]))


def test_even_energy_is_at_chance():
    delta, mask = torch.full((1, 3, 8, 8), -0.01), corner()
    assert energy_inside(delta, mask).item() == pytest.approx(1 / 16)
    assert EnergyInside().chance(mask).item() == 1 / 16


def test_energy_is_undefined_without_mask_or_perturbation():
    delta, mask = noise(5), corner(5)
    mask[0], mask[1], delta[2], delta[3, 0, 0, 0] = False, True, 0.0, torch.inf
    assert energy_inside(delta, mask).isnan().tolist() == [True, True, True, True, False]
    assert EnergyInside().chance(mask).isnan().tolist() == [True, True, False, False, False]
    assert EnergyInside()(delta).isnan().all()


@given(seed=st.integers(0, 1000), size=st.sampled_from([1e-30, 1e-6, 1.0, 1e20]))
def test_no_measure_depends_on_the_size_or_the_neighbours(seed, size):
    delta, mask = noise(seed=seed), torch.rand(4, 8, 8) < 0.4
    mask[:, 0, 0], mask[:, -1, -1] = True, False
    for measure in members("perturbation").values():
        value = measure(delta, mask)
        torch.testing.assert_close(measure(delta * size, mask), value, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(measure(delta[2:3], mask[2:3]), value[2:3])
        low, high = measure.limits
        assert ((value >= low) & (value <= high)).all()


def test_contrast_of_known_pictures():
    delta = torch.zeros(4, 1, 2, 4)
    delta[0, :, :, :2] = 0.03  # half at one end, half at the other
    delta[1] = torch.tensor([0.0, 1, 2, 3]) * 0.001  # a ramp: 0, 1/3, 2/3, 1
    delta[2, 0, 0, 0] = -0.5  # one of eight
    delta[3] = 0.0
    expected = [0.5, math.sqrt(5) / 6, math.sqrt(7) / 8, math.nan]
    torch.testing.assert_close(contrast(delta), torch.tensor(expected), equal_nan=True)
    assert contrast(delta.expand(-1, 3, -1, -1)).tolist()[:3] == pytest.approx(expected[:3])


def test_level_range_of_known_perturbations():
    delta = torch.zeros(3, 3, 10, 10)
    delta[0] = 0.02 * torch.sign(noise(1, side=10)[0])  # every pixel as far, whatever the signs
    delta[1, 0], delta[1, 0, :5] = 0.1, 0.4
    delta[2, :, 3, 3] = 1.0  # a single pixel is an extreme, and not counted by default
    assert LevelRange()(delta).tolist() == pytest.approx([0.0, 0.75, math.nan], nan_ok=True)
    assert LevelRange(tail=0)(delta).tolist() == pytest.approx([0.0, 0.75, 1.0])
    with pytest.raises(ValueError, match="tail"):
        LevelRange(tail=0.5)


def test_pictures_stretch_each_image_to_the_whole_range():
    delta = torch.zeros(3, 1, 1, 3)
    delta[0, 0, 0] = torch.tensor([-0.01, 0.0, 0.03])
    delta[1, 0, 0] = torch.tensor([-2e-9, 0.0, 1e-9])
    minmax = perturbation_pictures(delta)
    assert minmax.shape == (3, 1, 3, 3)
    assert minmax.dtype == np.uint8
    assert minmax[..., 0].squeeze(1).tolist() == [[0, 64, 255], [0, 170, 255], [128, 128, 128]]
    symmetric = perturbation_pictures(delta, "symmetric")
    assert symmetric[..., 1].squeeze(1).tolist() == [[85, 128, 255], [0, 128, 191], [128] * 3]


def test_pictures_keep_colour_and_count():
    delta = torch.zeros(2, 3, 4, 5)
    delta[0, 0], delta[0, 2] = 0.1, -0.1
    assert perturbation_pictures(delta)[0, 0, 0].tolist() == [255, 128, 0]
    assert perturbation_pictures(delta[:0]).shape == (0, 4, 5, 3)
    assert scaled(torch.tensor([[[[torch.nan, 1.0]]]])).tolist() == [[[[0.5, 0.5]]]]
    with pytest.raises(ValueError, match="1 or 3"):
        perturbation_pictures(torch.zeros(1, 2, 4, 4))
    with pytest.raises(ValueError, match="minmax or symmetric"):
        perturbation_pictures(delta, "linear")


def test_table_has_norms_measures_and_chance():
    delta, mask = torch.zeros(2, 1, 4, 4), corner(2, 4)
    delta[0, 0, 0, 0], delta[0, 0, 3, 3] = 0.3, -0.4
    table = perturbation_table(delta, mask)
    assert table["linf"][0] == pytest.approx(0.4)
    assert table["l2"][0] == pytest.approx(0.5)
    assert table["l1"][0] == pytest.approx(0.7)
    assert table["energy_inside"][0] == pytest.approx(0.36)
    assert table["energy_inside_chance"][0] == pytest.approx(1 / 16)
    assert all(len(column) == 2 and column.dtype == np.float32 for column in table.values())
    without = perturbation_table(delta)
    assert set(table) - set(without) == {"energy_inside", "energy_inside_chance"}


@pytest.mark.parametrize("measure", members("perturbation").values(), ids=repr)
def test_input_that_does_not_fit_is_refused(measure):
    with pytest.raises(ValueError, match="delta"):
        measure(torch.zeros(4, 8, 8))
    with pytest.raises(ValueError, match="mask"):
        measure(noise(4), corner(3))
