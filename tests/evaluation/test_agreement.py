"""Agreement of maps, against scipy and by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr

from diascope.evaluation.measures import members
from diascope.evaluation.measures.agreement import Spearman, Ssim, TopOverlap, _rendered
from diascope.evaluation.measures.maps import Maps
from diascope.explain import render

FEW = settings(deadline=None, max_examples=30)

FAMILY = members("agreement")
each = pytest.mark.parametrize("measure", FAMILY.values(), ids=FAMILY)


def pair(seed=0, levels=1000, count=3, height=20, width=31):
    """Maps with equal values, and others somewhat like them."""
    g = torch.Generator().manual_seed(seed)
    shape = (count, height, width)
    heat = torch.randint(0, levels + 1, shape, generator=g) / levels
    other = heat + torch.randint(0, levels + 1, shape, generator=g) / levels
    return heat, other


def test_the_family():
    assert set(FAMILY) >= {"spearman", "ssim", "top_overlap"}
    assert all(measure.higher_is_better for measure in FAMILY.values())


@each
def test_a_map_agrees_with_itself_and_less_with_others_the_less_they_are_like_it(measure):
    heat, _ = pair()
    torch.testing.assert_close(measure(heat, heat), torch.ones(3))
    torch.testing.assert_close(measure(heat, 5 * heat), torch.ones(3))
    noise = torch.rand(heat.shape, generator=torch.Generator().manual_seed(7))
    steps = [measure(heat, heat + size * noise) for size in (0.1, 0.5, 2.0)] + [
        measure(heat, noise)
    ]
    for nearer, farther in pairwise(steps):
        assert (nearer > farther).all()


@each
@FEW
@given(seed=st.integers(0, 1000), levels=st.sampled_from([1, 2, 9, 1000]))
def test_order_does_not_matter_and_limits_hold(measure, seed, levels):
    heat, other = pair(seed, levels)
    there = measure(heat, other)
    torch.testing.assert_close(there, measure(other, heat), equal_nan=True, rtol=1e-5, atol=1e-6)
    low, high = measure.limits
    assert (there.isnan() | ((there >= low) & (there <= high))).all()
    reverse = measure(heat, heat.amax() - heat)
    assert (reverse >= low).all()


@each
def test_a_map_that_is_the_same_everywhere_agrees_with_nothing(measure):
    heat, other = pair(count=4)
    heat[0], other[1], heat[2], other[2] = 0, 0.5, 1, 1
    assert measure(heat, other).isnan().tolist() == [True, True, True, False]
    other[3, 4, 4] = torch.nan
    assert measure(heat, other).isnan().all()


def test_spearman_by_hand():
    heat = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]])
    assert Spearman()(heat, 10 - heat).item() == -1.0
    assert Spearman()(heat, heat.square()).item() == 1.0
    swapped = torch.tensor([[[2.0, 1.0, 3.0, 4.0]]])  # 1 - 6 * 2 / (4 * 15)
    assert Spearman()(heat, swapped).item() == pytest.approx(0.8)


@FEW
@given(st.integers(0, 1000), st.sampled_from([1, 2, 3, 40, 10**6]))
def test_spearman_equals_scipy(seed, levels):
    heat, other = pair(seed, levels)
    expected = [
        spearmanr(a.ravel(), b.ravel())[0] for a, b in zip(heat.numpy(), other.numpy(), strict=True)
    ]
    np.testing.assert_allclose(Spearman()(heat, other).numpy(), expected, atol=1e-6)


def directly(a, b):
    """SSIM by Gaussian filters of scipy, over the windows that lie in the image."""

    def mean(z):
        return gaussian_filter(z, 1.5, radius=5)[5:-5, 5:-5]

    ma, mb = mean(a), mean(b)
    va, vb, cov = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.0001, 0.0009
    like = (2 * ma * mb + c1) * (2 * cov + c2)
    return (like / ((ma**2 + mb**2 + c1) * (va + vb + c2))).mean()


@pytest.mark.parametrize("shape", [(11, 11), (20, 31), (75, 42), (74, 106), (140, 139)])
@pytest.mark.parametrize("levels", [3, 1000])
def test_ssim_equals_filters_of_rendered_maps(shape, levels):
    heat, other = pair(3, levels, 2, *shape)
    shown = (render(each[:, None]).double().numpy() for each in (heat, other))
    expected = [directly(a, b) for a, b in zip(*shown, strict=True)]
    np.testing.assert_allclose(Ssim()(heat, other).numpy(), expected, atol=2e-6)


def test_maps_are_scaled_as_they_are_rendered():
    heat, other = pair(1)
    other[0] = 0
    other[0, 3, 3] = 2.0  # fewer than 1% of the pixels
    other[1] = 0
    for maps in (heat, other, 1e-25 * heat, 1e30 * heat):
        torch.testing.assert_close(_rendered(Maps(maps)), render(maps[:, None]), atol=1e-6, rtol=0)


def test_ssim_is_not_ruled_by_one_strong_pixel():
    heat, other = pair(count=1)[0], torch.rand(1, 20, 31, generator=torch.Generator())
    spoiled = heat.clone()
    spoiled[0, 0, 0] = 1000
    before = Ssim()(heat, other).item()
    assert Ssim()(spoiled, other).item() == pytest.approx(before, abs=0.02)


def test_ssim_needs_a_window():
    heat, other = pair(height=10)
    assert Ssim()(heat, other).isnan().all()


def test_overlap_by_hand():
    heat = torch.arange(20.0).view(1, 4, 5)
    other = heat.clone()
    assert TopOverlap(share=0.2)(heat, other).item() == 1.0
    other[0, 3, 3] = 0  # of the pixels 16 to 19, one gives way to 15
    assert TopOverlap(share=0.2)(heat, other).item() == pytest.approx(3 / 5)
    assert TopOverlap(share=0.2)(heat, 20 - heat).item() == 0.0
    tied = heat.clamp_max(16)  # 16 to 19 are equal, and half of each fits in
    assert TopOverlap(share=0.1)(tied, heat).item() == pytest.approx(1 / 3)


@FEW
@given(st.integers(0, 1000), st.sampled_from([1, 3, 1000]), st.sampled_from([0.001, 0.1, 0.5]))
def test_overlap_equals_shares(seed, levels, share):
    heat, other = pair(seed, levels)
    count = max(1, round(share * 620))

    def weights(h):
        edge = np.sort(h.ravel())[::-1][count - 1]
        return (h > edge) + (h == edge) * (count - (h > edge).sum()) / (h == edge).sum()

    for k in range(3):
        a, b = weights(heat[k].numpy()), weights(other[k].numpy())
        expected = np.minimum(a, b).sum() / np.maximum(a, b).sum()
        found = TopOverlap(share=share)(heat[k : k + 1], other[k : k + 1]).item()
        assert found == pytest.approx(expected, abs=1e-5)


def test_unrelated_maps_overlap_as_chance_says():
    g = torch.Generator().manual_seed(0)
    a, b = torch.rand(2, 50, 64, 64, generator=g).unbind()
    assert TopOverlap()(a, b).mean().item() == pytest.approx(0.1 / 1.9, abs=0.004)
    assert Spearman()(a, b).mean().item() == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_a_wrong_share_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        TopOverlap(share=share)


@each
def test_maps_of_other_images_are_refused(measure):
    heat, other = pair()
    for wrong in (other[:2], other[:, :15]):
        with pytest.raises(ValueError, match="do not pair"):
            measure(heat, wrong)
