"""Copies are found among look-alikes, and the search does not compare all with all."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image
from tests.audit.pictures import (
    brighter,
    cropped,
    dataset_of,
    evidence_of,
    jpeg,
    resized,
    texture,
)

from diascope.audit.datachecks import DATA_CHECKS
from diascope.audit.datachecks.alignment import similarities
from diascope.audit.datachecks.areas import averaged, whole
from diascope.audit.datachecks.candidates import BANDS, WINDOW, find_candidates
from diascope.audit.datachecks.copies import find_copies
from diascope.audit.datachecks.descriptors import Descriptor
from diascope.audit.datachecks.looking import look

SIDE = 112
BASE = texture(10_000, SIDE).astype(np.float32)
COUNT = 140
EACH = 10


def alike(seed: int) -> np.ndarray:
    """A picture that shares most of its contrast with all others, as chest X-rays do."""
    mixed = 0.75 * BASE + 0.4 * texture(seed, SIDE).astype(np.float32) - 0.15 * 128
    return np.clip(mixed, 0, 255).astype(np.uint8)


CHANGES = {
    "smaller": lambda image: resized(image, 60, 60),
    "squeezed": lambda image: resized(image, 90, 70),
    "jpeg": lambda image: jpeg(image, 30),
    "brighter": lambda image: brighter(image, 1.25),
    "gamma": lambda image: brighter(image, 1.0, 1.3),
    "cropped": lambda image: cropped(image, 0.05, 0.01, 0.03, 0.05),
    "all": lambda image: jpeg(
        brighter(resized(cropped(image, 0.03, 0.03, 0, 0.02), 80, 80), 0.9), 60
    ),
}


@pytest.fixture(scope="module")
def found():
    """Different pictures, then changed copies of some of them."""
    originals = [alike(k) for k in range(COUNT)]
    copies = [
        change(originals[EACH * c + k])
        for c, change in enumerate(CHANGES.values())
        for k in range(EACH)
    ]
    dataset = dataset_of([*originals, *copies])
    return find_copies([look(dataset, threads=1)])


@pytest.mark.parametrize("name", CHANGES)
def test_changed_copies_are_found(name, found):
    first = EACH * list(CHANGES).index(name)
    pairs = {tuple(pair) for pair in found.pairs.tolist()}
    hits = sum((first + k, COUNT + first + k) in pairs for k in range(EACH))
    assert hits >= EACH - 1


def test_what_only_looks_alike_is_not_taken_for_a_copy(found):
    assert (found.pairs[:, 1] - found.pairs[:, 0] == COUNT).all()


def test_equal_pixels_are_found_whatever_their_channels():
    grey = texture(1)
    twice = np.repeat(grey, 3, 2)
    dataset = dataset_of([grey, texture(2), twice, grey[::-1].copy(), grey.copy()])
    copies = find_copies([look(dataset, threads=1)])
    (cluster,) = copies.clusters(copies.exact)
    assert cluster.tolist() == [0, 2, 4]


def test_an_oblong_image_is_compared_by_its_central_square_too():
    oblong = [texture(k, 96, width=128) for k in range(30)]
    squares = [image[:, 16:112] for image in oblong[:10]]
    looked = [
        look(dataset_of(each, name), threads=1) for each, name in ((oblong, "a"), (squares, "b"))
    ]
    copies = find_copies(looked)
    assert {tuple(pair) for pair in copies.pairs.tolist()} >= {(k, 30 + k) for k in range(10)}


def test_images_without_detail_are_no_copies_of_each_other():
    blank = [np.full((40, 40, 1), 10 * k, np.uint8) for k in range(8)]
    assert len(find_copies([look(dataset_of(blank), threads=1)]).pairs) == 0


@pytest.mark.parametrize("count", [0, 1, 2])
def test_few_images_are_no_error(count):
    pictures = (
        [texture(k) for k in range(2)] if count < 2 else [texture(0), brighter(texture(0), 1.1)]
    )
    looked = look(dataset_of(pictures), threads=1)
    if count < 2:
        looked.contents[count:] = [""] * (2 - count)  # as if they could not be read
    assert len(find_copies([looked]).pairs) == (count == 2)


def random_places(count: int, spread: float = 10.0) -> tuple[np.ndarray, Descriptor]:
    axes = np.zeros((256, 32), np.float32)
    descriptor = Descriptor(axes, axes[:, 0], np.full(32, spread, np.float32), 100.0)
    drawn = np.random.default_rng(0).normal(size=(count, 32)) * spread
    return drawn.astype(np.float32), descriptor


def test_comparisons_grow_as_the_number_of_images():
    each = [find_candidates(*random_places(n)).comparisons / n for n in (250, 1000, 4000)]
    assert each[2] < 1.5 * each[0]  # all with all would be 16 times as many
    assert each[2] < BANDS * WINDOW


def test_a_crowd_in_one_place_does_not_make_them_grow_faster():
    places, descriptor = random_places(1500)
    places[:1200] = places[0]
    found = find_candidates(places, descriptor)
    assert found.comparisons <= BANDS * WINDOW * len(places)
    assert found.comparisons < 0.1 * 1200 * 1199 / 2 * BANDS


def test_pairs_within_reach_are_found_among_many():
    places, descriptor = random_places(4000)
    places[2000:] = places[:2000] + np.random.default_rng(1).normal(size=(2000, 32))
    found = find_candidates(places, descriptor)
    true = (found.pairs[:, 1] - found.pairs[:, 0]) == 2000
    assert true.sum() > 1980
    assert (~true).sum() == 0


def test_the_mean_over_cells_is_that_of_pillow():
    image = texture(3, 64)[..., 0]
    box = np.array([[0.1, 0.2, 0.9, 0.95]], np.float32)
    ours = averaged(image[None], box, 16)[0]
    left, top, right, bottom = (64 * v for v in (0.2, 0.1, 0.95, 0.9))
    theirs = Image.fromarray(image.astype(np.float32)).resize(
        (16, 16), Image.Resampling.BOX, box=(left, top, right, bottom)
    )
    assert np.abs(ours - np.asarray(theirs)).mean() < 1.5  # Pillow takes whole pixels
    assert np.allclose(
        averaged(image[None], whole(1), 32)[0], image.reshape(32, 2, 32, 2).mean((1, 3))
    )


def test_similarity_is_found_in_spite_of_shift_stretch_and_brightness():
    large, unlike = (resized(texture(k), 512, 512)[..., 0] for k in (4, 5))
    full = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.BOX))
    part = large[20:480, 30:500]
    moved = np.asarray(Image.fromarray(part).resize((64, 64), Image.Resampling.BOX))
    other = np.asarray(Image.fromarray(unlike).resize((64, 64), Image.Resampling.BOX))
    stack = np.stack([full, moved, 255 - (moved // 2), other])
    same, negative, different, itself = similarities(
        stack, np.array([[0, 1], [0, 2], [0, 3], [0, 0]])
    )
    assert same > 0.95
    assert negative < 0.5
    assert different < 0.5
    assert itself > 0.99


def test_small_images_are_compared_pixel_by_pixel_only():
    small = [resized(texture(k), 32, 32) for k in (0, 1, 0)]
    small[1] = brighter(small[0], 1.2)
    evidence = evidence_of(dataset_of(small))
    assert evidence.copies.pairs.tolist() == [[0, 2]]
    (finding,) = DATA_CHECKS["near_duplicates"](evidence)
    assert (finding.severity, finding.count) == ("info", 3)


def test_a_round_field_on_black_is_not_what_makes_copies():
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    field = (np.hypot(x, y) < 0.9)[..., None]
    pictures = [(90 + texture(k) // 24) * field for k in range(40)]
    pictures.append(brighter(pictures[3], 1.2))
    copies = find_copies([look(dataset_of(pictures), threads=1)])
    assert copies.pairs.tolist() == [[3, 40]]
