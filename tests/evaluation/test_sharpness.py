"""Sharpness on maps whose values are known by hand, and against direct computations."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from diascope.evaluation.measures import members
from diascope.evaluation.measures.sharpness import Entropy, Gini, HighFrequency, TotalVariation

FEW = settings(deadline=None, max_examples=30)

FAMILY = members("sharpness")
each = pytest.mark.parametrize("measure", FAMILY.values(), ids=FAMILY)


def lone(side=8):
    heat = torch.zeros(1, side, side)
    heat[0, 3, 4] = 2.0
    return heat


def blob(width, side=32):
    line = torch.arange(side) - side / 2
    return torch.exp(-0.5 * (line[:, None] ** 2 + line**2) / width**2)[None]


def noise(count=1, side=32, seed=0):
    return torch.rand(count, side, side, generator=torch.Generator().manual_seed(seed))


def wave(cycles, side=32):
    """A cosine of so many cycles across the image, above zero."""
    return (1 + torch.cos(2 * math.pi * cycles * torch.arange(side) / side)).expand(1, side, side)


def test_the_family():
    assert set(FAMILY) >= {"gini", "entropy", "total_variation", "high_frequency"}
    assert {name for name, m in FAMILY.items() if m.higher_is_better} == {"gini"}


def test_a_single_pixel_by_hand():
    assert Gini()(lone()).item() == pytest.approx(1 - 1 / 64)
    assert Entropy()(lone()).item() == pytest.approx(0, abs=1e-6)
    assert TotalVariation()(lone()).item() == pytest.approx(4)
    corner = torch.zeros(1, 8, 8)
    corner[0, 0, 0] = 1
    assert TotalVariation()(corner).item() == pytest.approx(2)


def test_a_map_that_is_the_same_everywhere():
    flat = torch.full((1, 9, 7), 0.3)
    assert Gini()(flat).item() == pytest.approx(0, abs=1e-6)
    assert Entropy()(flat).item() == pytest.approx(1, abs=1e-6)
    assert TotalVariation()(flat).item() == 0
    assert HighFrequency()(flat).isnan()


@each
def test_a_map_of_zeros_is_undefined(measure):
    heat = torch.cat([lone(), torch.zeros(1, 8, 8), -torch.zeros(1, 8, 8)])
    assert measure(heat).isnan().tolist() == [False, True, True]


def test_by_hand():
    heat = torch.tensor([[[1.0, 3.0], [0.0, 4.0]]])
    # rising 0 1 3 4 with sum 8: 1 - 2 (0 + 1/8 * 5/8 + 3/8 * 3/8 + 4/8 * 1/8)
    assert Gini()(heat).item() == pytest.approx(1 - 2 * (5 + 9 + 4) / 64)
    assert TotalVariation()(heat).item() == pytest.approx((2 + 4 + 1 + 1) / 8)
    p = [1 / 8, 3 / 8, 4 / 8]
    assert Entropy()(heat).item() == pytest.approx(-sum(v * math.log(v) for v in p) / math.log(4))


def test_waves_lie_on_either_side_of_the_cutoff():
    assert HighFrequency()(wave(7)).item() == pytest.approx(0, abs=1e-5)
    assert HighFrequency()(wave(8)).item() == pytest.approx(0, abs=1e-5)  # at it, not above
    assert HighFrequency()(wave(9)).item() == pytest.approx(1, abs=1e-5)
    assert HighFrequency()(wave(16)).item() == pytest.approx(1, abs=1e-5)
    both = wave(3) + 2 * wave(12).transpose(1, 2)  # energies as the squares of the amplitudes
    assert HighFrequency()(both).item() == pytest.approx(4 / 5, abs=1e-5)
    assert HighFrequency(above=0.4)(both).item() == pytest.approx(0, abs=1e-5)
    assert HighFrequency(above=0.05)(both).item() == pytest.approx(1, abs=1e-5)


def test_white_noise_has_the_share_of_the_area():
    found = HighFrequency()(noise(20, 64)).mean().item()
    assert found == pytest.approx(1 - math.pi / 16, abs=0.01)
    assert TotalVariation()(noise(20, 64)).mean().item() == pytest.approx(4 / 3, abs=0.03)


@each
def test_direction(measure):
    """A smaller blob is sharper; a blob with noise on it is noisier."""
    sharp, wide = measure(blob(2.0)).item(), measure(blob(6.0)).item()
    clean, noisy = measure(blob(3.0)).item(), measure(blob(3.0) + 0.5 * noise()).item()
    if isinstance(measure, Gini | Entropy):
        assert (sharp > wide) == measure.higher_is_better
    assert (clean > noisy) == measure.higher_is_better


@FEW
@given(st.integers(0, 1000), st.sampled_from([(6, 9), (7, 8), (5, 1), (12, 12)]))
def test_each_equals_its_definition(seed, shape):
    g = torch.Generator().manual_seed(seed)
    heat = torch.randint(0, 9, (2, *shape), generator=g) * torch.rand(2, *shape, generator=g)
    heat[:, 0, 0] += 0.1
    for k, h in enumerate(heat.double().numpy()):
        one, flat = heat[k : k + 1], np.sort(h.ravel())
        gaps = np.abs(flat[:, None] - flat).sum() / (2 * len(flat) * flat.sum())
        assert Gini()(one).item() == pytest.approx(gaps, abs=1e-5)
        assert Entropy()(one).item() == pytest.approx(entropy(flat) / np.log(h.size), abs=1e-5)
        steps = np.abs(np.diff(h, axis=0)).sum() + np.abs(np.diff(h, axis=1)).sum()
        assert TotalVariation()(one).item() == pytest.approx(steps / h.sum(), abs=1e-5)
        energy = np.abs(np.fft.fft2(h - h.mean())) ** 2
        fy, fx = np.meshgrid(*(np.fft.fftfreq(n) for n in h.shape), indexing="ij")
        share = energy[np.hypot(fy, fx) > 0.25].sum() / energy.sum()
        assert HighFrequency()(one).item() == pytest.approx(share, abs=1e-4)


def test_one_pixel_has_no_entropy():
    assert Entropy()(torch.ones(1, 1, 1)).isnan()
    assert Gini()(torch.ones(1, 1, 1)).item() == 0


@pytest.mark.parametrize("above", [-0.1, 0.71, math.nan])
def test_a_wrong_cutoff_is_refused(above):
    with pytest.raises(ValueError, match="cycles a pixel"):
        HighFrequency(above=above)


@each
def test_wrong_shapes_are_refused(measure):
    for heat in (torch.ones(4, 4), torch.ones(1, 1, 4, 4), torch.ones(1, 4, 4).long()):
        with pytest.raises(ValueError, match="expected floats"):
            measure(heat)
