from __future__ import annotations

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from diascope.explain import colours
from diascope.report import pictures


def opened(uri: str, mode: str) -> np.ndarray:
    kind, data = re.fullmatch(r"data:image/(png|webp);base64,(.+)", uri).groups()
    picture = Image.open(io.BytesIO(base64.b64decode(data)))
    assert picture.format.lower() == kind
    return np.asarray(picture.convert(mode)).astype(float)


def test_a_map_over_its_ground_is_exactly_the_default_colour_map():
    heat = np.linspace(0, 1, pictures.LEVELS, dtype=np.float32)[None].repeat(4, 0)
    rgba = opened(pictures.heat_map(heat, 64), "RGBA")
    alpha = rgba[..., 3:] / 255
    assert pictures.ground() == "#440154"
    ground = np.array([0x44, 0x01, 0x54])
    over = rgba[..., :3] * alpha + ground * (1 - alpha)
    wanted = colours.table(colours.DEFAULT, pictures.LEVELS) * 255
    assert np.abs(over[0] - wanted).max() < 2
    assert (rgba[:, 0, 3] == 0).all()  # no weight: the image as it is
    assert (rgba[:, -1, 3] == 255).all()
    assert (np.diff(rgba[0, :, 3]) >= 0).all()


def test_a_map_that_is_not_finite_is_still_a_picture():
    heat = np.array([[np.nan, np.inf], [-1.0, 0.5]], dtype=np.float32)
    alpha = opened(pictures.heat_map(heat, 8), "RGBA")[..., 3]
    assert alpha[0, 0] == alpha[1, 0] == 0
    assert alpha[0, 1] > alpha[1, 1] > 0


def test_a_perturbation_is_magnified_around_mid_grey():
    delta = np.zeros((8, 8, 3), np.float32)
    delta[0, 0], delta[7, 7], delta[3, 3] = 0.01, -0.01, 5.0
    shown = opened(pictures.perturbation(delta, 20, pictures.Encoding(64, lossless=True)), "RGB")
    assert np.abs(shown[4, 4] - 127.5).max() <= 1
    assert np.abs(shown[0, 0] - 255 * 0.7).max() <= 1
    assert np.abs(shown[7, 7] - 255 * 0.3).max() <= 1
    assert (shown[3, 3] == 255).all()


@pytest.mark.parametrize("channels", [1, 3])
def test_photographs_keep_their_shape_or_are_shrunk(channels):
    image = np.full((40, 80, channels), 90, np.uint8)
    assert opened(pictures.photograph(image, 80), "RGB").shape == (40, 80, 3)
    assert opened(pictures.photograph(image, 20), "RGB").shape == (10, 20, 3)
    assert np.abs(opened(pictures.photograph(image, 80), "RGB") - 90).max() <= 2
    delta = np.zeros((40, 80, channels), np.float32)
    assert opened(
        pictures.perturbation(delta, 1, pictures.Encoding(80, lossless=False)), "RGB"
    ).shape == (40, 80, 3)


def test_the_magnification_is_round_and_keeps_nearly_all_in_range():
    delta = np.random.default_rng(0).normal(0, 0.004, (32, 32, 3)).astype(np.float32)
    factor = pictures.magnification([delta, delta])
    assert factor in pictures.FACTORS
    assert np.quantile(np.abs(delta) * factor, 0.99) <= 0.5
    assert np.quantile(np.abs(delta) * factor, 0.99) > 0.2
    assert pictures.magnification([np.zeros((4, 4, 3), np.float32)]) == 1
    assert pictures.magnification([]) == 1
    assert pictures.magnification([np.full((4, 4, 3), 9.0, np.float32)]) == 1


def area(path: str) -> float:
    """Return the area that the subpaths enclose, holes subtracted."""
    total = 0.0
    for subpath in path.removeprefix("M").removesuffix("Z").split("ZM"):
        points = np.array([[float(v) for v in p.split()] for p in subpath.split("L")])
        x, y = points.T
        total += 0.5 * float(x @ np.roll(y, -1) - y @ np.roll(x, -1))
    return abs(total)


def test_the_outline_encloses_the_mask():
    mask = np.zeros((32, 48), bool)
    mask[5:21, 10:30] = True
    found = pictures.outline(mask)
    assert area(found) == pytest.approx(mask.sum(), rel=0.03)
    numbers = np.array([float(v) for v in re.findall(r"-?[\d.]+", found)]).reshape(-1, 2)
    assert np.allclose(numbers.min(0), [10, 5], atol=0.3)
    assert np.allclose(numbers.max(0), [30, 21], atol=0.3)


def test_outlines_at_the_border_close_and_small_or_empty_masks_do_no_harm():
    assert area(pictures.outline(np.ones((8, 8), bool))) == pytest.approx(64, rel=0.05)
    dot = np.zeros((16, 16), bool)
    dot[4, 4] = True
    assert pictures.outline(dot).endswith("Z")
    assert pictures.outline(np.zeros((8, 8), bool)) == ""


def kinds(count: int, side: int) -> list[pictures.Kind]:
    rng = np.random.default_rng(0)
    heats = [rng.uniform(size=(side, side)).astype(np.float32) for _ in range(2)]
    return [pictures.Kind(count, [lambda e, h=h: pictures.heat_map(h, e.side) for h in heats])]


def test_the_encoding_is_the_best_that_fits_the_budget():
    few, many = kinds(100, 64), kinds(1000, 128)
    assert pictures.fitting(8_000_000, few, 64) == pictures.Encoding(64, lossless=True)
    found = pictures.fitting(8_000_000, many, 128)
    assert not found.lossless
    assert 64 <= found.side < 128
    assert many[0].size(found) <= 8_000_000
    larger = pictures.SIDES[pictures.SIDES.index(found.side) - 1]
    assert many[0].size(pictures.Encoding(larger, lossless=False)) > 8_000_000
    assert pictures.fitting(1000, many, 128).side == pictures.SIDES[-1]
    assert pictures.fitting(8_000_000, [], 0) == pictures.Encoding(0, lossless=True)
