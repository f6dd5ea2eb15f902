"""The order and the ranks of pixels, against torch and by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.evaluation.test_agreement import pair

from diascope.evaluation.measures import ranks
from diascope.evaluation.measures.ranks import centred_ranks, order, rank_correlation, runs, ties

FEW = settings(deadline=None, max_examples=30)
_FLOATS = st.floats(width=32, allow_nan=False)
_FEW_FLOATS = st.sampled_from([0.0, -0.0, 1.0, 1e-45, -1e-45, float("inf"), -1.0, 65536.0, 65537.0])


@FEW
@given(st.lists(_FLOATS | _FEW_FLOATS, min_size=1, max_size=40))
def test_the_order_is_that_of_a_stable_sort(values):
    row = torch.tensor([values, values[::-1]], dtype=torch.float32)
    expected = [sorted(range(row.shape[1]), key=lambda k, of=each: -of[k]) for each in row]
    assert order(row).tolist() == expected
    assert ranks._order_by_torch(row).tolist() == expected


def test_the_order_of_maps_of_many_values():
    heat = torch.rand(3, 224 * 224, generator=torch.Generator().manual_seed(0))
    heat[1] = heat[1].round(decimals=2)
    heat[2] = heat[2].exp() * 1e-39  # below the least normal number
    for values in (heat, -heat, heat - 0.5, heat.T.contiguous().T):
        places = order(values)
        assert torch.equal(places, values.sort(dim=1, stable=True, descending=True).indices)
    assert order(heat[:0]).shape == (0, 224 * 224)


def test_runs_of_equal_values():
    rows = torch.tensor([[3, 3, 2, 1, 1, 1], [1, 2, 3, 4, 5, 5], [5, 4, 3, 2, 1, 0]])
    first, more, later = (each.tolist() for each in runs(ties(rows)))
    assert (first, more, later) == ([0, 3, 10], [1, 2, 1], [1, 4, 5, 11])


@FEW
@given(st.integers(0, 1000), st.sampled_from([1, 2, 9, 1000]))
def test_ranks_of_some_pixels_equal_those_of_the_pixels_alone(seed, levels):
    heat, other = (each.flatten(1) for each in pair(seed, levels))
    inside = torch.rand(heat.shape, generator=torch.Generator().manual_seed(seed)) < 0.4
    inside[:, :2] = True
    a, b = centred_ranks(heat, inside), centred_ranks(other, inside)
    assert (a[~inside] == 0).all()
    found = rank_correlation(a, b)
    for k in range(3):
        a, b = heat[k, inside[k]], other[k, inside[k]]
        alone = centred_ranks(a[None]), centred_ranks(b[None])
        assert torch.equal(centred_ranks(heat, inside)[k, inside[k]], alone[0][0])
        expected = rank_correlation(*alone)[0]
        torch.testing.assert_close(found[k], expected, equal_nan=True, atol=1e-6, rtol=0)


@FEW
@given(st.integers(0, 1000), st.sampled_from([1, 2, 9, 1000]), st.booleans())
def test_ranks_on_a_device_equal_those_on_the_cpu(seed, levels, masked):
    heat = pair(seed, levels)[0].flatten(1)
    inside = heat > heat.median() if masked else None
    expected = centred_ranks(heat, inside)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks, "order", ranks._order_by_torch)
        assert torch.equal(centred_ranks(heat, inside), expected)


def test_ranks_by_hand():
    values = torch.tensor([[3.0, 1.0, 3.0, 2.0, -0.0, 0.0], [5.0, 5.0, 5.0, 5.0, 5.0, 5.0]])
    assert (centred_ranks(values) / 2 + 3.5).tolist() == [[5.5, 3, 5.5, 4, 1.5, 1.5], [3.5] * 6]
