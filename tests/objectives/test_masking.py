"""The mask: how many features, which, and what stands in their place."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.nets import images
from torch import Tensor

from diascope.objectives.masking import lowest, masked, saliency
from diascope.randomness import Noise

SHAPES = st.tuples(st.integers(1, 4), st.sampled_from([1, 3]), st.integers(1, 6), st.integers(1, 6))
SHARES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.1, 0.5, 1.0]))


def drawn(shape: tuple[int, ...], seed: int, ties: bool) -> Tensor:
    """Scores; with ties they take three values, and whole images are equal."""
    generator = torch.Generator().manual_seed(seed)
    score = torch.randn(shape, generator=generator)
    return score.sign() * (score.abs() > 1) if ties else score


def noise_of(x: Tensor, seed: int = 5) -> Noise:
    return Noise(seed, torch.arange(len(x)) + 7)


class Highest(Noise):
    """Noise that draws the highest number there is."""

    def uniform(self, shape, stream=0):
        return torch.full((len(self.ids), *shape), 1 - 2.0**-24)


@given(SHAPES, SHARES, st.integers(0, 99), st.booleans())
def test_the_lowest_share_is_masked_to_the_feature(shape, k, seed, ties):
    score = drawn(shape, seed, ties)
    found = lowest(score, k)
    assert found.shape == score.shape
    for row, mask in zip(score.flatten(1).numpy(), found.flatten(1).numpy(), strict=True):
        order = np.argsort(row, kind="stable")  # of equal scores the first
        expected = np.zeros(row.size, bool)
        expected[order[: round(k * row.size)]] = True
        np.testing.assert_array_equal(mask, expected)


@given(SHAPES, SHARES, st.integers(0, 99), st.booleans(), st.sampled_from(["uniform", 0.25]))
def test_what_is_not_masked_is_untouched(shape, k, seed, pixels, fill):
    x = images(shape[0], 6, shape[1], seed)[:, :, : shape[2], : shape[3]]
    score = drawn((shape[0], 1 if pixels else shape[1], *shape[2:]), seed, True)
    mask = lowest(score, k).expand(x.shape)
    found = masked(x, score, k, fill, noise_of(x))
    assert torch.equal(found[~mask], x[~mask])
    if fill == 0.25:
        assert (found[mask] == 0.25).all()
    low, high = x.amin((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
    if fill == "uniform":
        assert ((found >= low) & (found <= high)).all()


@given(SHAPES, SHARES, st.integers(0, 99), st.data())
def test_an_image_does_not_depend_on_its_batch(shape, k, seed, data):
    x = images(shape[0], 6, shape[1], seed)[:, :, : shape[2], : shape[3]]
    score, noise = drawn(x.shape, seed, True), noise_of(x)
    rows = torch.tensor(data.draw(st.permutations(range(len(x)))))
    whole = masked(x, score, k, "uniform", noise)
    assert torch.equal(whole[rows], masked(x[rows], score[rows], k, "uniform", noise.take(rows)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_layout_in_memory_does_not_matter(dtype):
    x, score = images(4, 9).to(dtype), drawn((4, 3, 9, 9), 3, True).to(dtype)
    last = {"memory_format": torch.channels_last}
    plain = masked(x, score, 0.3, "uniform", noise_of(x))
    assert plain.dtype == dtype
    assert torch.equal(
        plain, masked(x.contiguous(**last), score.contiguous(**last), 0.3, "uniform", noise_of(x))
    )


def test_bfloat16_scores_are_ranked_as_they_are():
    score = drawn((3, 3, 8, 8), 0, False).bfloat16()
    assert torch.equal(lowest(score, 0.2), lowest(score.float(), 0.2))


def test_the_fill_is_uniform_in_each_channels_own_range():
    x = images(8, 40) * torch.tensor([0.2, 0.5, 0.0]).view(1, 3, 1, 1) + 0.4
    found = masked(x, torch.zeros_like(x), 1.0, "uniform", noise_of(x))
    for channel, high in ((0, 0.6), (1, 0.9)):
        values = found[:, channel]
        assert values.mean() == pytest.approx((0.4 + high) / 2, abs=0.01)
        assert values.std() == pytest.approx((high - 0.4) / 12**0.5, abs=0.01)
    assert (found[:, 2] == x[:, 2]).all()  # a constant channel has one value to draw from


@settings(max_examples=200)
@given(st.floats(0, 1, width=32), st.floats(0, 1, width=32))
def test_the_fill_never_leaves_the_pixel_bounds(a, b):
    x = torch.tensor([a, b], dtype=torch.float32).repeat(50).view(1, 1, 10, 10)
    for noise in (noise_of(x), Highest(0, torch.arange(1))):
        found = masked(x, torch.zeros_like(x), 1.0, "uniform", noise)
        assert min(a, b) <= found.min()
        assert found.max() <= max(a, b)


def test_each_image_and_each_seed_has_a_fill_of_its_own():
    x = images(1, 16).repeat(2, 1, 1, 1)
    one = masked(x, torch.zeros_like(x), 1.0, "uniform", noise_of(x))
    other = masked(x, torch.zeros_like(x), 1.0, "uniform", noise_of(x, seed=6))
    for a, b in ((one[0], one[1]), (one[0], other[0])):
        assert abs(float(torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1])) < 0.1


def test_pixels_go_with_all_their_colours():
    x, score = images(3, 8), drawn((3, 1, 8, 8), 1, False)
    changed = masked(x, score, 0.25, 0.5, noise_of(x)) != x
    assert (changed.sum((2, 3)) == 16).all()
    assert torch.equal(changed, lowest(score, 0.25).expand(x.shape))
    drawn_values = masked(x, score, 0.25, "uniform", noise_of(x))[changed].view(3, 3, 16)
    assert (drawn_values[:, 0] != drawn_values[:, 1]).any()


def test_saliency_by_hand():
    gradient = torch.tensor([3.0, -1.0, -5.0]).view(1, 3, 1, 1)
    values = {
        ("signed", "each"): [3, -1, -5],
        ("absolute", "each"): [3, 1, 5],
        ("signed", "mean"): [-1],
        ("absolute", "mean"): [1],
        ("absolute", "mean_abs"): [3],
    }
    for (ranking, channels), expected in values.items():
        assert saliency(gradient, ranking, channels).flatten().tolist() == expected
