from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch

from diascope.evaluation.localisation import centre_prior, localisation_table
from diascope.evaluation.measures import maps
from diascope.evaluation.measures.localisation import AveragePrecision, PointingGame


def discs(count=5, size=24):
    """Return masks of discs (B, H, W) that grow, the first in a corner, the rest centred."""
    y, x = torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")
    centre = (size - 1) / 2
    masks = [(y - centre) ** 2 + (x - centre) ** 2 < (2 + i) ** 2 for i in range(count)]
    masks[0] = (y < 4) & (x < 4)
    return torch.stack(masks)


def test_prior_is_symmetric_peaks_at_one_and_scales_with_the_sides():
    prior = centre_prior(20, 30)
    assert prior.shape == (20, 30)
    assert prior.max() == 1.0
    assert torch.equal(prior, prior.flip(0))
    assert torch.equal(prior, prior.flip(1))
    assert (prior == 1).sum() == 4  # even sides: the middle is four pixels
    profile = centre_prior(101, 41, sigma=0.2)
    assert profile[50, 20] == 1.0
    assert profile[50 + 20, 20].item() == pytest.approx(np.exp(-0.5 * (20 / 20.2) ** 2))
    assert profile[50, 20 + 8].item() == pytest.approx(np.exp(-0.5 * (8 / 8.2) ** 2))
    with pytest.raises(ValueError, match="positive"):
        centre_prior(4, 4, sigma=0.0)


def test_columns_stand_beside_chance_and_centre():
    masks = discs()
    g = torch.Generator().manual_seed(0)
    table = pd.DataFrame(localisation_table(torch.rand(masks.shape, generator=g), masks))
    assert len(table) == 5
    for name in ("mass_inside", "pointing", "average_precision"):
        share = masks.float().mean((1, 2)).numpy()
        np.testing.assert_allclose(table[name + "_chance"], share, rtol=1e-6)
        centre = table[name + "_centre"]
        assert centre[0] < table[name + "_chance"][0]  # the corner
        assert (centre[1:] > 2 * table[name + "_chance"][1:]).all()
    np.testing.assert_allclose(table.average_precision_centre[1:], 1.0)
    np.testing.assert_array_equal(table.pointing_centre, [0, 1, 1, 1, 1])


def test_a_map_of_the_prior_scores_as_the_prior():
    masks = discs()
    table = localisation_table(centre_prior(24, 24, 0.1).expand(masks.shape), masks, sigma=0.1)
    for name in ("mass_inside", "pointing", "average_precision"):
        np.testing.assert_array_equal(table[name], table[name + "_centre"])


def test_images_without_a_mask_are_undefined_in_every_column():
    masks = discs()
    masks[2] = False
    table = localisation_table(torch.ones(masks.shape), masks)
    for name, column in table.items():
        assert np.isnan(column).tolist() == [False, False, True, False, False], name


def test_chunks_do_not_matter(monkeypatch):
    masks, heat = discs(), torch.rand(5, 24, 24)
    whole = localisation_table(heat, masks)
    monkeypatch.setitem(maps._PIXELS, "cpu", 2 * 24 * 24)
    for name, column in localisation_table(heat, masks).items():
        np.testing.assert_allclose(column, whole[name], rtol=1e-6)


def test_measures_can_be_chosen():
    masks = discs()
    chosen = {"ap": AveragePrecision(), "pointing_3": PointingGame(tolerance=3)}
    table = localisation_table(torch.ones(masks.shape), masks, measures=chosen)
    assert list(table) == [
        "ap",
        "ap_chance",
        "ap_centre",
        "pointing_3",
        "pointing_3_chance",
        "pointing_3_centre",
    ]
    assert (table["pointing_3_chance"] > table["ap_chance"]).all()


def test_no_images():
    table = localisation_table(torch.zeros(0, 8, 8), torch.zeros(0, 8, 8, dtype=torch.bool))
    assert all(column.shape == (0,) for column in table.values())
