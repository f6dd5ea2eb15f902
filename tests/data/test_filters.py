from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from tests.data import trees

from diascope.data import Preprocess
from diascope.data.filters import FILTERS, filtered
from diascope.data.filters.contrast import Contrast, blur
from diascope.data.filters.minmax import MinMax
from diascope.errors import UserError
from diascope.registry import to_settings


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("name", FILTERS.names())
def test_every_filter_keeps_shape_and_input_and_goes_to_settings_and_back(name: str) -> None:
    one = FILTERS.build(name)
    assert FILTERS.build(to_settings(one)) == one
    assert hash(one) == hash(FILTERS.build(name))
    for shape in ((16, 16, 3), (9, 14, 1), (1, 1, 1)):
        image = noise(*shape).astype(np.float32)
        before = image.copy()
        out = one(image)
        assert out.shape == image.shape
        assert out.dtype == np.float32
        assert np.isfinite(out).all()
        assert (image == before).all()


@pytest.mark.parametrize(
    ("height", "width", "sigma"), [(224, 224, 20.0), (64, 48, 20.0), (33, 50, 1.3), (5, 7, 0.4)]
)
def test_the_blur_is_scipys(height: int, width: int, sigma: float) -> None:
    image = noise(height, width)
    want = gaussian_filter(image.astype(np.float64), (sigma, sigma, 0), mode="reflect", truncate=8)
    assert np.abs(blur(image.astype(np.float32), sigma) - want).max() < 2e-3


def test_the_contrast_filter_is_the_papers_formula() -> None:
    image = trees.pixels(3, 224, 224)
    soft = gaussian_filter(image.astype(np.float64), (20, 20, 0), mode="reflect")
    want = np.rint((4.0 * image - 4 * soft + 128).clip(0, 255))
    got = filtered(image, [Contrast()])
    assert got.min() == 0
    assert got.max() == 255
    away = np.abs(got - want)  # scipy ends its kernel at 4 sigma
    assert away.max() <= 1
    assert (away > 0).mean() < 0.02


def test_a_flat_image_becomes_the_offset() -> None:
    flat = np.full((40, 40, 3), 77, np.uint8)
    assert (filtered(flat, [Contrast()]) == 128).all()
    assert (filtered(flat, [MinMax()]) == 77).all()


def test_sigma_at_a_reference_shrinks_with_the_image() -> None:
    image = noise(32, 32).astype(np.float32)
    assert (Contrast(sigma=20, reference=320)(image) == Contrast(sigma=2)(image)).all()
    assert (Contrast(sigma=20)(image) != Contrast(sigma=2)(image)).any()


def test_the_stretch_spans_the_range_and_keeps_hues() -> None:
    image = (noise(20, 20) // 4 + 30).astype(np.float32)
    out = MinMax()(image)
    assert out.min() == 0
    assert np.rint(out.max()) == 255
    low, high = image.min(), image.max()
    assert np.allclose(out, (image - low) / (high - low) * 255, atol=1e-3)


def test_nothing_is_rounded_between_filters() -> None:
    faint = np.zeros((64, 64, 1), np.uint8)
    faint[:, 20:40] = 3
    faint[5, 5] = 7
    both = filtered(faint, [MinMax(), Contrast(sigma=5)])
    exact = (faint * (255 / 7)).astype(np.float64)
    soft = gaussian_filter(exact, (5, 5, 0), truncate=8)
    want = (4 * exact - 4 * soft + 128).clip(0, 255)
    assert np.abs(both - want).max() <= 0.51


def test_filters_come_last_and_see_the_working_image() -> None:
    image = trees.pixels(2, 60, 40)
    bare = Preprocess().image(image, 24)
    got = Preprocess(filters=["min-max", {"name": "contrast", "sigma": 3}]).image(image, 24)
    assert (got == filtered(bare, [MinMax(), Contrast(sigma=3)])).all()
    grey = image[..., :1]
    three = Preprocess(filters=["contrast"]).image(grey, 24)
    one = Preprocess(filters=["contrast"], channels=1).image(grey, 24)
    assert three.shape == (24, 24, 3)
    assert (three == one).all()


def test_mistakes_name_the_key() -> None:
    with pytest.raises(UserError, match="sigma"):
        FILTERS.build({"name": "contrast", "sigma": 0})
    with pytest.raises(ValueError, match="did you mean 'contrast'"):
        Preprocess(filters=["contrst"])
    with pytest.raises(ValueError, match="write a list"):
        Preprocess(filters="contrast")
    with pytest.raises(ValueError, match="unknown key 'sigmas'"):
        Preprocess(filters=[{"name": "contrast", "sigmas": 2}])
