"""The map and the colour within the lesion, against loops and on the phantom."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr

from diascope.data.phantom import generate
from diascope.evaluation.measures.colour import ColourVariation, colour_variance

FEW = settings(deadline=None, max_examples=30)


def case(seed=0, channels=3, count=2, height=14, width=17):
    g = torch.Generator().manual_seed(seed)
    x = torch.rand(count, channels, height, width, generator=g)
    mask = torch.zeros(count, height, width, dtype=torch.bool)
    mask[:, 2:11, 3:15] = torch.rand(count, 9, 12, generator=g) < 0.8
    return torch.rand(count, height, width, generator=g), x, mask


def directly(x, window, inside):
    """Variances of the window's pixels inside, one pixel after the other."""
    _, height, width = x.shape
    found, half = np.zeros((height, width)), window // 2
    for r in range(height):
        for c in range(width):
            rows = slice(max(0, r - half), r + half + 1)
            columns = slice(max(0, c - half), c + half + 1)
            near = x[:, rows, columns][:, inside[rows, columns]]
            found[r, c] = near.var(axis=1).sum() if near.size else 0.0
    return found


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("window", [3, 9, 21])
@pytest.mark.parametrize("masked", [False, True])
def test_variance_equals_a_loop(channels, window, masked):
    _, x, mask = case(1, channels)
    inside = mask if masked else torch.ones_like(mask)
    found = colour_variance(x, window, mask if masked else None).numpy()
    expected = [
        directly(a.double().numpy(), window, m.numpy()) for a, m in zip(x, inside, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_plain_image_has_no_variance_whatever_its_colour():
    x = torch.tensor([0.1, 0.7, 1 / 3])[None, :, None, None].expand(1, 3, 20, 20)
    assert (colour_variance(x, 5) == 0).all()
    step = torch.zeros(1, 1, 1, 9)
    step[..., 5:] = 1 / 255  # the smallest step of 8 bits
    assert (colour_variance(step, 9)[0, 0, 1:] > 0).all()


def test_a_map_of_the_variance_itself_agrees_fully_and_its_reverse_not_at_all():
    _, x, mask = case()
    variance = colour_variance(x, 9, mask)
    torch.testing.assert_close(ColourVariation()(variance, x, mask), torch.ones(2))
    torch.testing.assert_close(ColourVariation()(1 - variance, x, mask), -torch.ones(2))
    torch.testing.assert_close(ColourVariation()(variance.sqrt(), x, mask), torch.ones(2))


@FEW
@given(st.integers(0, 1000), st.sampled_from([3, 5]))
def test_it_is_spearmans_coefficient_within_the_mask(seed, window):
    heat, x, mask = case(seed)
    variance = colour_variance(x, window, mask)
    found = ColourVariation(window=window)(heat, x, mask)
    for k in range(2):
        expected = spearmanr(heat[k][mask[k]], variance[k][mask[k]])[0]
        assert found[k].item() == pytest.approx(expected, abs=1e-6)


def test_what_lies_outside_the_mask_does_not_matter():
    heat, x, mask = case()
    expected = ColourVariation()(heat, x, mask)
    spoiled = torch.where(mask, heat, 100.0)
    painted = torch.where(mask[:, None], x, 1.0)
    torch.testing.assert_close(ColourVariation()(spoiled, painted, mask), expected)


def test_what_is_not_defined():
    heat, x, mask = case(count=5)
    mask[0] = False
    heat[1] = 0.5
    heat[2][mask[2]] = 0.25
    x[3] = 0.5
    values = ColourVariation()(heat, x, mask)
    assert values.isnan().tolist() == [True, True, True, True, False]
    mask[4] = True
    assert not ColourVariation()(heat, x, mask)[4].isnan()  # the whole image may be the lesion


def test_wrong_input_is_refused():
    heat, x, mask = case()
    with pytest.raises(ValueError, match="do not fit"):
        ColourVariation()(heat, x[..., :9], mask)
    with pytest.raises(ValueError, match="bool"):
        ColourVariation()(heat, x, mask.float())
    for window in (1, 4):
        with pytest.raises(ValueError, match="odd"):
            ColourVariation(window=window)


def test_on_the_phantom_a_map_of_colour_variation_is_told_from_one_of_the_outline():
    p = generate(24, size=48, seed=5)
    x = torch.from_numpy(p.images).permute(0, 3, 1, 2).float() / 255
    mask = torch.from_numpy(p.masks)
    grey = x.mean(1)
    edges = torch.zeros_like(grey)
    edges[:, :, 1:] += (grey[:, :, 1:] - grey[:, :, :-1]).abs()
    edges[:, 1:] += (grey[:, 1:] - grey[:, :-1]).abs()
    noise = torch.rand(grey.shape, generator=torch.Generator().manual_seed(0))
    measure = ColourVariation(window=5)
    assert measure(edges, x, mask).mean() > 0.25
    assert abs(measure(noise, x, mask).mean()) < 0.05
