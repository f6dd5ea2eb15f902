"""Every corruption keeps its promises; each changes what it is named after."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from diascope.evaluation.corruptions import CORRUPTIONS, SEVERITIES, corruptions
from diascope.evaluation.corruptions.base import heat_kernel
from diascope.registry import to_settings

each = pytest.mark.parametrize("name", CORRUPTIONS.names())
BY_LOT = {"colour_cast", "contrast", "exposure", "motion", "noise", "rotation"}


def pictures(count=4, side=32, channels=3, seed=0, grain=0.03):
    """Smooth fields with a dark spot and some grain, as photographs of lesions are."""
    g = torch.Generator().manual_seed(seed)
    field = F.interpolate(
        torch.rand(count, channels, 4, 4, generator=g), (side, side), mode="bilinear"
    )
    place = torch.linspace(-1, 1, side)
    centre = 0.6 * torch.rand(2, count, 1, 1, generator=g) - 0.3
    away = (place[:, None] - centre[0]) ** 2 + (place - centre[1]) ** 2
    x = 0.35 + 0.4 * field - 0.3 * torch.exp(-8 * away)[:, None]
    return (x + grain * torch.randn(x.shape, generator=g)).clamp(0, 1)


def distances(corrupt, x, ids=None):
    """How far each severity moves each image, (5, B)."""
    return torch.stack([(corrupt(x, s, ids) - x).flatten(1).norm(dim=1) for s in SEVERITIES])


@each
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [5, 16, 33])
def test_shape_range_and_input(name, channels, side):
    x = torch.rand(3, channels, side, side + 2)
    x[0], x[1] = x[0].round(), 1.0
    before = x.clone()
    for severity in SEVERITIES:
        y = CORRUPTIONS[name]()(x, severity)
        assert y.shape == x.shape
        assert y.dtype == torch.float32
        assert y.min() >= 0
        assert y.max() <= 1
    assert torch.equal(x, before)
    assert CORRUPTIONS[name]()(x[:0], 1).shape == x[:0].shape
    with pytest.raises(ValueError, match="severity=6"):
        CORRUPTIONS[name]()(x, 6)
    with pytest.raises(ValueError, match="1 or 3"):
        CORRUPTIONS[name]()(x[:, :1].repeat(1, 2, 1, 1), 1)


@each
@settings(max_examples=20)
@given(seed=st.integers(0, 10**6), channels=st.sampled_from([1, 3]), side=st.integers(32, 48))
def test_a_higher_severity_moves_every_image_further(name, seed, channels, side):
    corrupt, x = CORRUPTIONS[name](), pictures(2, side, channels, seed)
    moved = distances(corrupt, x, torch.tensor([seed, seed + 7]))
    if corrupt.needs_colour and channels == 1:
        assert (moved == 0).all()
        return
    assert (moved[0] > 0).all()
    assert (moved[1:] > moved[:-1]).all()


@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), side=st.integers(8, 20))
def test_blur_exposure_contrast_cast_and_noise_do_so_for_any_image(seed, side):
    x = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(seed))
    for name in ("blur", "exposure", "contrast", "colour_cast", "noise"):
        moved = distances(CORRUPTIONS[name](), x, torch.tensor([seed, 1]))
        assert (moved[1:] > moved[:-1]).all(), name


@each
def test_an_image_is_corrupted_by_seed_and_id_alone(name):
    x, ids = pictures(6), torch.arange(100, 106)
    corrupt, order = CORRUPTIONS[name](), torch.tensor([4, 1, 5, 0, 3, 2])
    for severity in (1, 4):
        whole = corrupt(x, severity, ids)
        singly = torch.cat([corrupt(x[i : i + 1], severity, ids[i : i + 1]) for i in range(6)])
        torch.testing.assert_close(singly, whole, rtol=0, atol=2e-6)
        turned = corrupt(
            x[order].contiguous(memory_format=torch.channels_last), severity, ids[order]
        )
        torch.testing.assert_close(turned, whole[order], rtol=0, atol=2e-6)
        assert torch.equal(corrupt(x, severity, ids), whole)
    other = [CORRUPTIONS[name](seed=1)(x, 3, ids), corrupt(x, 3, ids + 40)]
    same = [torch.allclose(y, corrupt(x, 3, ids), atol=2e-6) for y in other]
    assert same == [name not in BY_LOT] * 2


@each
def test_settings_go_to_yaml_and_back(name):
    corrupt = CORRUPTIONS[name](seed=3)
    assert CORRUPTIONS.build(to_settings(corrupt)) == corrupt
    assert "levels:" in " ".join(type(corrupt).__doc__.split())


@each
def test_a_severity_is_the_same_accident_at_any_size(name):
    """The same scene at 96 and 192 pixels: the damage, seen at 96, is about the same."""
    if name in ("jpeg", "resolution"):
        pytest.skip("it counts in the pixels of the model's image, as its docstring says")
    large = pictures(6, 192, grain=0)
    small, ids = F.avg_pool2d(large, 2), torch.arange(6)
    corrupt = CORRUPTIONS[name]()
    for severity in (3, 5):
        there = F.avg_pool2d(corrupt(large, severity, ids), 2) - small
        here = corrupt(small, severity, ids) - small
        ratio = here.square().mean().sqrt() / there.square().mean().sqrt()
        assert 0.7 < ratio < 1.4, (severity, float(ratio))


def test_blur_is_a_gaussian_and_keeps_the_mean():
    kernel = heat_kernel(61, 4.0).double()
    place = torch.arange(61).double() - 30
    row = kernel[30]
    torch.testing.assert_close(kernel.sum(1), torch.ones(61).double())
    assert (row * place**2).sum() == pytest.approx(16, rel=1e-3)
    expected = torch.exp(-(place**2) / 32) / (32 * np.pi) ** 0.5
    torch.testing.assert_close(row, expected, rtol=0.05, atol=1e-4)
    x = pictures(2)
    y = corruptions()["blur"](x, 5)
    torch.testing.assert_close(y.mean((2, 3)), x.mean((2, 3)), rtol=0, atol=1e-5)


def test_rotation_turns_as_much_as_it_says_and_brings_no_black_in():
    x = torch.full((2, 3, 32, 32), 0.5)
    torch.testing.assert_close(corruptions()["rotation"](x, 5), x)
    stick = torch.zeros(40, 1, 65, 65)
    stick[:, :, 32, 8:57] = 1
    turned = corruptions()["rotation"](stick, 5, torch.arange(40))[:, 0]
    place = torch.arange(65).float() - 32
    right = turned[:, :, 52:56].sum((1, 2))
    height = (turned[:, :, 52:56] * place[:, None]).sum((1, 2)) / right
    slope = torch.atan2(height.abs(), torch.tensor(21.5)) * 180 / np.pi
    assert (slope - 16).abs().max() < 1
    assert 8 < (height > 0).sum() < 32  # to either side


def test_exposure_contrast_and_cast_go_both_ways():
    x, ids = pictures(60, 16), torch.arange(60)
    brighter = corruptions()["exposure"](x, 2, ids).mean((1, 2, 3)) > x.mean((1, 2, 3))
    harder = corruptions()["contrast"](x, 2, ids).std((1, 2, 3)) > x.std((1, 2, 3))
    cast = corruptions()["colour_cast"](x, 2, ids)
    warmer = cast[:, 0].mean((1, 2)) > x[:, 0].mean((1, 2))
    assert torch.equal(warmer, cast[:, 2].mean((1, 2)) < x[:, 2].mean((1, 2)))
    assert torch.equal(cast[:, 1], x[:, 1])
    for way in (brighter, harder, warmer):
        assert 15 < way.sum() < 45


def test_noise_has_the_spread_that_it_states():
    x = torch.full((4, 3, 112, 112), 0.5)
    y = corruptions()["noise"](x, 3)
    assert (y - x).std() == pytest.approx(0.10 * 112 / 224 * (0.5 + 1 / 16) ** 0.5, rel=0.02)
    assert abs(float((y - x).mean())) < 1e-3


def test_jpeg_is_what_pillow_saves():
    import io

    from PIL import Image

    x = pictures(1, 24)
    file = io.BytesIO()
    eight = (x[0] * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(eight).save(file, "JPEG", quality=40, subsampling=2)
    expected = torch.from_numpy(np.array(Image.open(file))).permute(2, 0, 1).float() / 255
    assert torch.equal(corruptions()["jpeg"](x, 3)[0], expected)


def test_motion_smears_a_point_along_a_line():
    point = torch.zeros(40, 1, 65, 65)
    point[:, :, 32, 32] = 1
    smeared = corruptions()["motion"](point, 5, torch.arange(40))[:, 0]
    torch.testing.assert_close(smeared.sum((1, 2)), torch.ones(40))
    place = torch.arange(65).double() - 32
    for spot in smeared.double():
        rows, columns = (spot.sum(1) * place**2).sum(), (spot.sum(0) * place**2).sum()
        cross = (spot * place[:, None] * place).sum()
        along, across = torch.linalg.eigvalsh(torch.tensor([[rows, cross], [cross, columns]])).flip(
            0
        )
        assert along == pytest.approx((0.075 * 65) ** 2 / 12, rel=0.35)  # of a line that long
        assert across < 0.35
