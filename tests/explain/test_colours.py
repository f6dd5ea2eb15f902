from __future__ import annotations

import numpy as np
import pytest
import torch

from diascope.explain import colours, overlays
from diascope.explain.render import caps, render, render_signed

# How dichromats see linear RGB (Viénot, Brettel and Mollon 1999, table 1, without its scaling).
PROTAN = np.array([[0.1124, 0.8876, 0.0], [0.1124, 0.8876, 0.0], [0.004, -0.004, 1.0]])
DEUTAN = np.array([[0.2928, 0.7072, 0.0], [0.2928, 0.7072, 0.0], [-0.0223, 0.0223, 1.0]])
TRITAN = np.array([[1.0, 0.1526, -0.1526], [0.0, 0.8671, 0.1329], [0.0, 0.8671, 0.1329]])
EYES = {"usual": np.eye(3), "protan": PROTAN, "deutan": DEUTAN, "tritan": TRITAN}


def lightness(rgb: np.ndarray, eye: str = "usual") -> np.ndarray:
    """The CIE lightness L* of sRGB colours (..., 3), 0 to 100."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    y = np.clip(linear @ EYES[eye].T, 0, None) @ [0.2126, 0.7152, 0.0722]
    return np.where(y > 0.008856, 116 * np.cbrt(y) - 16, 903.3 * y)


@pytest.mark.parametrize("eye", EYES)
@pytest.mark.parametrize("name", colours.MAPS)
def test_every_map_reads_in_grey_and_for_the_colour_blind(name, eye):
    light = lightness(colours.table(name), eye)
    steps = np.diff(light) * np.sign(light[-1] - light[0])
    assert steps.min() > -0.35  # never back by what an eye could see (1 is just seen)
    assert np.abs(light[-1] - light[0]) > 60


def test_lightness_grows_evenly_in_the_default_and_no_sign_is_neutral_and_halfway():
    light = lightness(colours.table(colours.DEFAULT))
    assert np.corrcoef(light, np.arange(len(light)))[0, 1] > 0.995
    low, middle, high = colours.table("signed", 3)
    assert np.ptp(middle) < 0.01
    assert lightness(low) < lightness(middle) - 30
    assert lightness(high) > lightness(middle) + 30
    assert low[2] > low[0] + 0.1  # blue
    assert high[0] > high[2] + 0.1  # yellow


def test_colours_are_those_of_the_table_and_what_is_no_number_is_no_evidence():
    heat = torch.tensor([[[0.0, 0.5], [1.0, 9.0]], [[-3.0, torch.nan], [torch.inf, 0.25]]])
    shown = colours.colourise(heat, "magma")
    assert (shown.shape, shown.dtype) == ((2, 3, 2, 2), torch.uint8)
    table = np.rint(colours.table("magma") * 255)
    assert shown[0, :, 0, 1].tolist() == table[128].tolist()
    assert shown[0, :, 1, 0].tolist() == shown[0, :, 1, 1].tolist() == table[255].tolist()
    assert shown[1, :, 0, 0].tolist() == shown[1, :, 0, 1].tolist() == table[0].tolist()
    signed = colours.colourise(torch.tensor([[[-1.0, 0.0, 1.0, torch.nan]]]), "signed")[0, :, 0].T
    wanted = np.rint(colours.table("signed") * 255)[[0, 128, 255, 128]]
    assert np.abs(signed.numpy() - wanted).max() <= 1
    with pytest.raises(ValueError, match="did you mean 'magma'"):
        colours.colourise(heat, "magna")
    with pytest.raises(ValueError, match="expected"):
        colours.colourise(heat[0])


def test_signed_maps_keep_zero_and_sign_and_are_capped_by_size():
    raw = torch.linspace(-2, 1, 400).view(1, 1, 20, 20)
    raw[0, 0, 10, 10] = 0
    heat = render_signed(raw)
    assert (heat.sign() == raw[:, 0].sign()).all()
    assert heat.min() == -1
    assert 0.49 < heat.max() < 0.52
    assert heat[0, 10, 10] == 0
    three = torch.tensor([[[[1.0, -1.0]], [[-1.0, -1.0]], [[0.0, 0.0]]]])
    assert render_signed(three).tolist() == [[[0.0, -1.0]]]
    assert render_signed(torch.full((1, 3, 2, 2), torch.nan)).tolist() == [[[0, 0], [0, 0]]]


@pytest.mark.parametrize("percentile", [0.5, 37.0, 99.0, 100.0])
def test_caps_are_the_percentiles_of_numpy(percentile):
    heat = torch.rand(3, 17, 23, generator=torch.Generator().manual_seed(0))
    wanted = np.percentile(heat.flatten(1).numpy(), percentile, axis=1)
    torch.testing.assert_close(caps(heat, percentile), torch.from_numpy(wanted).float())
    one = torch.full((1, 1, 1), 3.0)
    assert caps(one, percentile).tolist() == [3.0]
    assert render(torch.zeros(1, 1, 4, 4), percentile=percentile).sum() == 0


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("grey", [False, True])
def test_an_overlay_is_the_image_where_there_is_no_evidence(channels, grey):
    x = torch.rand(2, channels, 8, 8, generator=torch.Generator().manual_seed(0))
    heat = torch.zeros(2, 8, 8)
    heat[0, 2, 3], heat[0, 2, 4] = 1.0, 0.5
    laid = overlays.overlay(x, heat, "viridis", strength=1, grey=grey)
    image = overlays.picture(x, grey=grey)
    assert laid.shape == (2, 3, 8, 8)
    changed = (laid != image).any(1)
    assert changed.nonzero().tolist() == [[0, 2, 3], [0, 2, 4]]
    most, half = (np.rint(colours.table("viridis")[k] * 255) for k in (255, 128))
    assert laid[0, :, 2, 3].tolist() == most.tolist()
    between = (image[0, :, 2, 4].numpy().astype(float) + half) / 2
    assert np.abs(laid[0, :, 2, 4].numpy() - between).max() <= 0.51
    if grey or channels == 1:
        assert torch.equal(image[:, 0], image[:, 1])
    else:
        assert torch.equal(image, (x * 255).round().to(torch.uint8))


def test_signed_overlays_show_evidence_against_as_well():
    x, heat = torch.full((1, 3, 4, 4), 0.5), torch.zeros(1, 4, 4)
    heat[0, 0, 0], heat[0, 3, 3] = -1, 1
    laid = overlays.overlay(x, heat, "signed", strength=1)
    assert (laid[0, :, 1, 1] == 128).all()
    assert laid[0, 2, 0, 0] > laid[0, 0, 0, 0]
    assert laid[0, 0, 3, 3] > laid[0, 2, 3, 3]


def test_what_does_not_fit_is_refused():
    x = torch.rand(2, 3, 8, 8)
    with pytest.raises(ValueError, match="does not fit"):
        overlays.overlay(x, torch.zeros(2, 4, 4))
    with pytest.raises(ValueError, match="strength"):
        overlays.overlay(x, torch.zeros(2, 8, 8), strength=0)
    with pytest.raises(ValueError, match="images"):
        overlays.picture(x[:, :2])
    with pytest.raises(ValueError, match="do not fit"):
        overlays.outlined(overlays.picture(x), torch.zeros(2, 8, 8))
    with pytest.raises(ValueError, match="boxes of 1"):
        overlays.boxed(overlays.picture(x), [[]])


@pytest.mark.parametrize("width", [1, 2])
@pytest.mark.parametrize("level", [0, 255])
def test_the_outline_is_a_double_line_on_the_border_seen_on_any_skin(width, level):
    mask = torch.zeros(2, 20, 24, dtype=torch.bool)
    mask[0, 5:15, 6:18] = True
    before = torch.full((2, 3, 20, 24), level, dtype=torch.uint8)
    after = overlays.outlined(before, mask, width=width)
    wanted = before[0].clone()
    wanted[:, 5 - width : 15 + width, 6 - width : 18 + width] = 0
    wanted[:, 5:15, 6:18] = 255
    wanted[:, 5 + width : 15 - width, 6 + width : 18 - width] = level
    assert torch.equal(after[0], wanted)
    assert torch.equal(after[1], before[1])  # an empty mask draws nothing
    assert (after[0] != level).any()


def test_the_outline_closes_at_the_edge_of_the_picture():
    inside, outside = overlays.edges(torch.ones(1, 4, 4, dtype=torch.bool))
    assert inside.sum() == 12
    assert not outside.any()


def test_boxes_are_drawn_where_they_are_and_each_whole():
    before = torch.full((1, 3, 20, 20), 90, dtype=torch.uint8)
    after = overlays.boxed(before, [[(4, 6, 8, 5), (8, 8, 40, 6)]])[0]
    yellow = (after == torch.tensor(overlays.YELLOW)[:, None, None]).all(0)
    assert yellow[6:11, 4].all()
    assert yellow[6, 4:12].all()
    assert yellow[8, 8:].all()  # the second, cut at the picture's edge
    assert yellow[8:14, 8].all()
    assert (after[:, 5, 4:12] == 0).all()
    assert (after[:, 16:] == 90).all()


def test_enlarging_repeats_pixels_by_a_whole_factor():
    pictures = torch.arange(12, dtype=torch.uint8).view(1, 1, 3, 4)
    large = overlays.enlarged(pictures, 10)
    assert large.shape == (1, 1, 9, 12)
    assert torch.equal(large[..., 1::3, 1::3], pictures)
    assert torch.equal(large[..., ::3, 2::3], pictures)
    assert overlays.enlarged(pictures, 4).shape == pictures.shape
