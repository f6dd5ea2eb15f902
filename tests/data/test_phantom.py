from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import (
    binary_dilation,
    binary_erosion,
    center_of_mass,
    gaussian_filter,
    uniform_filter,
)
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from diascope.data import ReadError, open_data, open_dataset
from diascope.data.phantom import (
    Phantom,
    PhantomReader,
    PhantomSettings,
    generate,
    phantom_dataset,
    write_phantom,
)
from diascope.data.phantom import reader as reader_module
from diascope.data.phantom.dice import Dice
from diascope.data.phantom.generate import BLOCK, draw_block, lineage
from diascope.data.phantom.marks import STICKERS, sticker_class
from diascope.errors import UserError
from diascope.randomness import Noise


@pytest.fixture(scope="module")
def many() -> Phantom:
    return generate(480, size=48, seed=5)


def drawn(*without: str, **options: object) -> Phantom:
    settings = PhantomSettings(images=BLOCK, **options)  # type: ignore[arg-type]
    return draw_block(settings, 0, frozenset(without))


def changed(one: Phantom, other: Phantom) -> np.ndarray:
    return (one.images != other.images).any(-1)


def test_shapes_and_types() -> None:
    p = generate(5, size=32, hospital="both", agreement=0.9)
    assert p.images.shape == (5, 32, 32, 3)
    assert p.images.dtype == np.uint8
    assert p.labels.dtype == np.int64
    for region in (p.masks, p.hairs, p.shortcut):
        assert region.shape == (5, 32, 32)
        assert region.dtype == np.bool_
    assert p.hospital.tolist() == ["a", "a", "b", "b", "a"]
    assert p.classes == ("nevus", "keratosis", "melanoma")
    assert len(p) == 5


def test_an_image_does_not_depend_on_how_many_are_generated() -> None:
    few, more = generate(3, size=32, seed=4), generate(BLOCK + 7, size=32, seed=4)
    np.testing.assert_array_equal(few.images, more.images[:3])
    np.testing.assert_array_equal(few.masks, more.masks[:3])
    np.testing.assert_array_equal(few.labels, more.labels[:3])


@pytest.mark.parametrize("hospital", ["a", "b"])
def test_an_image_does_not_depend_on_those_drawn_beside_it(hospital: str) -> None:
    both = generate(BLOCK, size=32, seed=4, hospital="both")
    alone = generate(BLOCK, size=32, seed=4, hospital=hospital)
    rows = both.hospital == hospital
    difference = both.images[rows].astype(int) - alone.images[rows]
    assert rows.sum() == BLOCK // 2
    assert np.abs(difference).max() <= 1  # one level: vectorised rounding may differ
    assert (difference != 0).mean() < 1e-3


def test_seeds_and_hospitals_show_other_lesions() -> None:
    first = generate(BLOCK, size=32)
    for other in (generate(BLOCK, size=32, seed=1), generate(BLOCK, size=32, hospital="b")):
        assert (first.masks != other.masks).any((1, 2)).all()
        assert (first.labels != other.labels).any()


@pytest.mark.parametrize("size", [32, 64, 150])
def test_the_mask_is_the_drawn_lesion(size: int) -> None:
    full = drawn("camera", "hair", size=size)
    bare = drawn("camera", "hair", "lesion", size=size)
    difference = changed(full, bare)
    assert not (difference & ~full.masks).any()
    assert (full.masks & ~difference).sum() <= 1e-3 * full.masks.sum()


def test_after_the_camera_a_lesion_reaches_no_further_than_the_blur() -> None:
    full, bare = drawn(size=64), drawn("lesion", size=64)
    difference = changed(full, bare)
    for lesion, pixels in zip(full.masks, difference, strict=True):
        assert not (pixels & ~binary_dilation(lesion, iterations=8)).any()
        assert (lesion & pixels).sum() >= 0.9 * lesion.sum()


def test_the_hair_mask_is_the_drawn_hair() -> None:
    full, bald = drawn("camera", size=64), drawn("camera", "hair", size=64)
    difference = changed(full, bald)
    assert not (difference & ~full.hairs).any()
    assert (full.hairs & ~difference).sum() <= 0.01 * full.hairs.sum()
    hairy = full.hairs.any((1, 2))
    assert hairy.any()
    assert not hairy.all()


def test_the_shortcut_is_the_drawn_sticker_and_spares_the_lesion() -> None:
    plain = drawn("camera", "hair", size=64)
    planted = drawn("camera", "hair", size=64, agreement=1.0)
    assert not plain.shortcut.any()
    difference = changed(planted, plain)
    assert not (difference & ~planted.shortcut).any()
    assert (planted.shortcut & ~difference).sum() <= 0.01 * planted.shortcut.sum()
    assert planted.shortcut.any((1, 2)).all()
    assert not (planted.shortcut & planted.masks).any()
    np.testing.assert_array_equal(plain.labels, planted.labels)


@pytest.mark.parametrize(("agreement", "right"), [(1.0, BLOCK), (0.0, 0)])
def test_the_colour_of_the_sticker_tells_the_class(agreement: float, right: int) -> None:
    p = drawn("camera", "hair", size=64, agreement=agreement)
    stickers = STICKERS / STICKERS.norm(dim=1, keepdim=True)
    told = []
    for image, region in zip(p.images, p.shortcut, strict=True):
        colour = torch.from_numpy(image[region].mean(0))
        told.append(int((stickers @ colour.float()).argmax()))
    assert (np.array(told) == p.labels).sum() == right


@pytest.mark.parametrize("agreement", [0.1, 0.5, 0.9])
def test_agreement_is_the_probability_that_the_sticker_tells_the_class(agreement: float) -> None:
    n = 9000
    label = torch.arange(n) % 3
    told = sticker_class(Dice(Noise(1, torch.arange(n))), label, torch.full((n,), agreement))
    assert (told == label).float().mean().item() == pytest.approx(agreement, abs=0.02)
    lies = (told - label)[told != label] % 3
    assert (lies == 1).float().mean().item() == pytest.approx(0.5, abs=0.04)


def test_each_hospital_has_its_agreement() -> None:
    p = drawn("camera", "hair", size=64, hospital="both", agreement=1.0, agreement_b=0.0)
    a, b = (
        drawn("camera", "hair", size=64, hospital=h, agreement=v) for h, v in (("a", 1), ("b", 0))
    )
    expected = np.where((p.hospital == "a")[:, None, None, None], a.images, b.images)
    assert np.abs(p.images.astype(int) - expected).max() <= 1


def test_hospitals_have_different_colour_casts(many: Phantom) -> None:
    b = generate(96, size=48, seed=5, hospital="b")

    def redness(p: Phantom) -> float:
        colour = p.images.reshape(-1, 3).mean(0)
        return float(colour[0] / colour[2])

    assert redness(many) > 1.15 * redness(b)


def test_classes_are_equally_frequent() -> None:
    labels = phantom_dataset(images=6000).labels
    assert np.bincount(labels).min() > 0.3 * len(labels)


def test_share_of_lesions_with_two_views() -> None:
    which, lesion = lineage(PhantomSettings(second_views=0.15), torch.arange(20_000))
    _, counts = lesion.unique(return_counts=True)
    assert counts.max() == 2
    assert (counts == 2).float().mean().item() == pytest.approx(0.15, abs=0.01)
    assert not which.any()
    _, lesion = lineage(PhantomSettings(second_views=0.0), torch.arange(100))
    assert lesion.tolist() == list(range(100))


def test_second_views_show_one_lesion_turned(many: Phantom) -> None:
    first = np.flatnonzero(many.lesion[:-1] == many.lesion[1:])
    assert len(first) > 25
    np.testing.assert_array_equal(many.labels[first], many.labels[first + 1])
    area = many.masks.mean((1, 2))
    inner = ~(many.masks[:, [0, -1]].any((1, 2)) | many.masks[:, :, [0, -1]].any((1, 2)))
    whole = first[inner[first] & inner[first + 1]]
    # The zoom of each view is 0.92 to 1.08.
    ratio = area[whole] / area[whole + 1]
    assert ((ratio > 0.65) & (ratio < 1.5)).all()
    assert (many.masks[first] != many.masks[first + 1]).any((1, 2)).all()


def test_sizes_show_the_same_scene() -> None:
    small, large = generate(6, size=32), generate(6, size=128)
    reduced = large.masks.reshape(6, 32, 4, 32, 4).mean((2, 4)) > 0.5
    overlap = (reduced & small.masks).sum((1, 2)) / (reduced | small.masks).sum((1, 2))
    assert overlap.min() > 0.8
    colour = large.images.reshape(6, 32, 4, 32, 4, 3).mean((2, 4))
    assert np.abs(colour - small.images).mean() < 8
    np.testing.assert_array_equal(small.labels, large.labels)


def test_lesions_lie_in_the_image_and_many_off_its_centre(many: Phantom) -> None:
    share = many.masks.mean((1, 2))
    assert share.min() > 0.01
    assert share.max() < 0.6
    line = (np.arange(48) + 0.5) / 48 * 2 - 1
    x = (many.masks.sum(1) @ line) / many.masks.sum((1, 2))
    y = (many.masks.sum(2) @ line) / many.masks.sum((1, 2))
    assert np.hypot(x, y).mean() < 0.4
    assert 0.15 < (np.hypot(x, y) > 0.3).mean() < 0.5
    at_centre = many.masks[:, 23:25, 23:25].any((1, 2)).mean()
    assert 0.6 < at_centre < 0.95


def lopsidedness(mask: np.ndarray) -> float:
    """Return the area by which a region differs from itself turned half round, over its own."""
    y, x = (round(place) for place in center_of_mass(mask))
    n = len(mask)
    centred = np.pad(mask, n)[y : y + 2 * n + 1, x : x + 2 * n + 1]
    return float((centred ^ centred[::-1, ::-1]).sum() / mask.sum())


def variegation(image: np.ndarray, inside: np.ndarray) -> float:
    """Return the spread of a region's colours across the line from pale to dark."""
    density = gaussian_filter(np.log(image + 5.0), (1, 1, 0))[inside]  # (n, 3)
    spreads = np.linalg.svd(density - density.mean(0), compute_uv=False)
    return float(spreads[1] / np.sqrt(len(density)))


def test_the_signs_of_the_class_can_be_measured(many: Phantom) -> None:
    def medians(values: list[float]) -> list[float]:
        return [float(np.median(np.array(values)[many.labels == k])) for k in range(3)]

    nevus, keratosis, melanoma = medians([lopsidedness(mask) for mask in many.masks])
    assert nevus * 1.2 < keratosis * 1.1 < melanoma
    border = [(m & ~binary_erosion(m)).sum() / np.sqrt(m.sum()) for m in many.masks]
    nevus, keratosis, melanoma = medians(border)
    assert nevus * 1.1 < melanoma
    assert nevus < keratosis < melanoma
    mottle, colours = [], []
    for image, mask in zip(many.images, many.masks, strict=True):
        inner = binary_erosion(mask, iterations=2) if mask.sum() > 100 else mask
        grey = image.mean(-1)
        mottle.append((grey - uniform_filter(grey, 7))[inner].std() / grey[inner].mean())
        colours.append(variegation(image, inner))
    nevus, keratosis, melanoma = medians(mottle)
    assert max(nevus, melanoma) * 1.5 < keratosis
    nevus, keratosis, melanoma = medians(colours)
    assert nevus * 1.2 < keratosis * 1.1 < melanoma


def test_the_colour_of_the_whole_image_hardly_tells_the_class(many: Phantom) -> None:
    flat = many.images.reshape(len(many), -1, 3) / 255
    features = np.concatenate([flat.mean(1), flat.std(1)], axis=1)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    model.fit(features[:320], many.labels[:320])
    assert model.score(features[320:], many.labels[320:]) < 0.65
    model.fit(features[:320, :3], many.labels[:320])
    assert model.score(features[320:, :3], many.labels[320:]) < 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "images=0"),
        ({"size": 4}, "size=4"),
        ({"hospital": "c"}, "unknown hospital 'c'"),
        ({"agreement": 1.5}, "agreement=1.5"),
        ({"agreement": float("nan")}, "agreement=nan"),
        ({"agreement_b": -0.1}, "agreement_b=-0.1"),
        ({"difficulty": -1.0}, "difficulty=-1.0"),
        ({"second_views": 2.0}, "second_views=2.0"),
    ],
)
def test_wrong_settings_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate(**options)  # type: ignore[arg-type]


def test_the_dataset_agrees_with_the_generated_images() -> None:
    data = open_data("phantom:images=70,size=32,seed=3,hospital=both,agreement=0.9")
    p = generate(70, size=32, seed=3, hospital="both", agreement=0.9)
    assert isinstance(data.reader, PhantomReader)
    np.testing.assert_array_equal(data.labels, p.labels)
    assert (data.table["source"] == [f"hospital-{h}" for h in p.hospital]).all()
    for row in (0, 33, 69):
        path = data.table["path"][row]
        assert path == f"{p.hospital[row]}/{row:06d}"
        np.testing.assert_array_equal(data.reader.image(path), p.images[row])
        np.testing.assert_array_equal(data.reader.mask(data.table["mask"][row]), p.masks[row])
        np.testing.assert_array_equal(data.reader.hair(path), p.hairs[row])
        np.testing.assert_array_equal(data.reader.shortcut(path), p.shortcut[row])
    same = p.lesion[:-1] == p.lesion[1:]
    assert same.any()
    np.testing.assert_array_equal(data.groups[:-1] == data.groups[1:], same)


def test_splits_keep_the_views_of_a_lesion_together() -> None:
    parts = phantom_dataset(images=400).split(seed=1)
    groups = [set(part.groups) for part in parts]
    assert sum(len(part) for part in parts) == 400
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & groups[2]


@pytest.mark.parametrize("path", ["a/000064", "b/000001", "a/1", "a/-00001", "a", "", "c/000001"])
def test_a_path_that_the_phantom_has_not_is_a_read_error(path: str) -> None:
    with pytest.raises(ReadError):
        PhantomReader(PhantomSettings(images=64, size=32)).image(path)


def test_the_stamp_changes_with_the_settings() -> None:
    stamps = {
        PhantomReader(PhantomSettings(seed=seed, agreement=agreement)).stamp("a/000000")
        for seed in (0, 1)
        for agreement in (None, 0.5)
    }
    assert len(stamps) == 4


def test_the_reader_serves_threads_and_keeps_its_memory_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(reader_module, "KEPT_BYTES", 2 * BLOCK * 32 * 32 * 6)
    settings = PhantomSettings(images=4 * BLOCK, size=32, seed=8)
    reader = PhantomReader(settings)
    paths = phantom_dataset(settings).table["path"]
    with ThreadPoolExecutor(4) as pool:
        images = np.stack(list(pool.map(reader.image, paths)))
    np.testing.assert_array_equal(images, generate(4 * BLOCK, size=32, seed=8).images)
    assert len(reader_module._KEPT) <= 2


def test_written_files_read_back(tmp_path: Path) -> None:
    options = {"images": 5, "size": 32, "seed": 2, "hospital": "both", "agreement": 0.5}
    table = write_phantom(tmp_path / "out", **options)
    p = generate(**options)  # type: ignore[arg-type]
    data, written = open_dataset("table", table), pd.read_csv(table)
    assert set(data.table["label"]) <= set(p.classes)
    assert data.table["label"].tolist() == [p.classes[k] for k in p.labels]
    for row in range(5):
        np.testing.assert_array_equal(data.reader.image(data.table["path"][row]), p.images[row])
        for column, region in (("mask", p.masks), ("hair", p.hairs), ("shortcut", p.shortcut)):
            read = data.reader.mask(written[column][row])
            np.testing.assert_array_equal(read, region[row])


def test_the_phantom_takes_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="it has no files"):
        open_dataset("phantom", tmp_path)
