from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.data import trees

from diascope.data import Preprocess
from diascope.data.circle import Disc, find_disc
from diascope.data.windows import Window


def fundus(
    height: int, width: int, x: float, y: float, radius: float, seed: int = 0, glow: float = 0.5
) -> np.ndarray:
    """A lit disc with a bright spot, dark vessels, a fading rim and sensor noise, on black."""
    draw = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width] + 0.5
    away = np.hypot(columns - x, rows - y) / radius
    light = np.where(away < 1, 150 * (1 - glow * away.clip(0, 1) ** 2), 0.0)
    spot = np.hypot(columns - x - 0.5 * radius, rows - y) / (0.15 * radius)
    light += np.where(away < 1, 100 * np.exp(-(spot**2)), 0)
    light -= np.where(np.abs(rows - y - 0.2 * (columns - x)) < 0.02 * radius, 0.6 * light, 0)
    colour = light[..., None] * [1.0, 0.55, 0.25] + draw.normal(4, 3, (height, width, 3))
    return colour.clip(0, 255).astype(np.uint8)


CASES = {
    "centred": (300, 400, 200, 150, 130),
    "off centre": (300, 420, 160, 140, 120),
    "cut off above and below": (280, 420, 210, 140, 170),
    "cut off on the left": (300, 400, 120, 150, 140),
    "a square around it": (400, 400, 200, 200, 200),
    "only the corners are dark": (360, 360, 180, 180, 215),
    "small": (90, 120, 60, 45, 40),
    "large": (900, 1300, 640, 460, 420),
}


@pytest.mark.parametrize("case", CASES)
def test_the_disc_is_found(case: str) -> None:
    height, width, x, y, radius = CASES[case]
    disc = find_disc(fundus(height, width, x, y, radius, seed=len(case)))
    assert disc is not None
    within = max(0.015 * radius, 1.5)
    assert abs(disc.x - x) < within
    assert abs(disc.y - y) < within
    assert abs(disc.radius - radius) < within


def test_a_notch_a_stamp_and_a_grey_ground_are_no_matter() -> None:
    image = fundus(300, 420, 210, 150, 130)
    image[140:160, 335:352] = 150  # the tab that tells right from left
    image[270:290, 380:410] = 255  # a stamp in the corner
    image[:40] = np.maximum(image[:40], 12)
    for shown in (image, image[..., :1], np.maximum(image, 25)):
        disc = find_disc(shown)
        assert disc is not None
        assert np.abs(np.subtract([disc.x, disc.y, disc.radius], [210, 150, 130])).max() < 2.5


def test_what_is_no_disc_is_none() -> None:
    rows, columns = np.mgrid[:200, :300]
    square = np.where((abs(rows - 100) < 70) & (abs(columns - 150) < 70), 180, 5)
    half = np.where(columns < 150, 180, 5)
    noise = np.random.default_rng(0).integers(0, 256, (200, 300))
    for picture in (square, half, noise, np.full((200, 300), 90), np.zeros((200, 300))):
        assert find_disc(np.repeat(picture[..., None], 3, 2).astype(np.uint8)) is None
    assert find_disc(trees.pixels(0, 300, 200)) is None
    assert find_disc(np.zeros((1, 1, 3), np.uint8)) is None


def test_without_a_disc_the_centre_square_is_cut() -> None:
    image = trees.pixels(1, 80, 60)
    mask = trees.region(80, 60)
    circle, centre = Preprocess(crop="circle"), Preprocess()
    assert circle.window(image) == centre.window(image) == Window(0, 10, 60, 60)
    assert (circle.image(image, 30) == centre.image(image, 30)).all()
    window = circle.window(image)
    assert (circle.mask(mask, 30, window) == centre.mask(mask, 30)).all()


@pytest.mark.parametrize("case", ["off centre", "cut off above and below", "cut off on the left"])
def test_the_bounding_square_is_cut_and_regions_with_it(case: str) -> None:
    height, width, x, y, radius = CASES[case]
    image = fundus(height, width, x, y, radius, glow=0)
    rows, columns = np.mgrid[:height, :width] + 0.5
    disc = np.hypot(columns - x, rows - y) < radius
    circle = Preprocess(crop="circle", channels=1)
    window = circle.window(image)
    assert abs(window.width - 2 * radius) <= 0.03 * radius
    small, region = circle.image(image, 100, window), circle.mask(disc, 100, window)
    v, u = np.mgrid[:100, :100] + 0.5
    ideal = np.hypot(u - 50, v - 50) < 50
    inside = region[ideal].mean()  # the image does not hold all of a disc that is cut off
    assert abs(inside - disc.sum() / (np.pi * radius**2)) < 0.03
    assert not region[~ideal].any() or region[~ideal].mean() < 0.05
    lit = small[..., 0] > 30
    assert (lit == region).mean() > 0.96


def test_a_mask_without_its_image_is_refused() -> None:
    with pytest.raises(ValueError, match="window of its image"):
        Preprocess(crop="circle").mask(np.zeros((4, 4), bool), 2)


def test_a_window_beyond_the_image_is_black() -> None:
    image = np.full((4, 6, 3), 9, np.uint8)
    cut = Window(-2, -1, 8, 8).cut(image)
    assert cut.shape == (8, 8, 3)
    assert (cut[2:6, 1:7] == 9).all()
    assert cut.sum() == 9 * 4 * 6 * 3
    assert Disc(3, 2, 4).window == Window(-2, -1, 8, 8)
    inner = Window(1, 2, 2, 3).cut(image[..., 0] > 0)
    assert inner.all()
    assert inner.flags.c_contiguous


def test_real_fundus_photographs(shared_data: Path) -> None:
    from diascope.data.readers import FileReader, listing

    root = shared_data / "eyepacs_dr"
    names = listing(root, "images_400.zip")[::50]
    reader = FileReader(root)
    discs = [find_disc(reader.image(name)) for name in names]
    found = [disc for disc in discs if disc is not None]
    assert len(found) >= 0.9 * len(names)
    # cut to their discs, or within them, when they were made 400 pixels wide
    assert all(170 < disc.radius < 290 for disc in found)
    assert np.median([np.hypot(disc.x - 200, disc.y - 200) for disc in found]) < 8
    whole = [k for k, disc in enumerate(discs) if disc is not None and disc.radius < 195]
    for k in whole[:3]:
        padded = np.zeros((600, 1200, 3), np.uint8)
        padded[80:480, 300:700] = reader.image(names[k])
        alone, moved = discs[k], find_disc(padded)
        assert alone is not None
        assert moved is not None
        assert np.hypot(moved.x - alone.x - 300, moved.y - alone.y - 80) < 6
