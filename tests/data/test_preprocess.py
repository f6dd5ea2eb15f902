from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch
from tests.data import trees

from diascope.data import Preprocess


def test_the_crop_is_the_centre_square() -> None:
    image = np.zeros((30, 40, 3), np.uint8)
    image[:, 5:35] = 200
    assert (Preprocess().image(image, 30) == 200).all()
    assert (Preprocess().image(image, 15) == 200).all()
    squashed = Preprocess(crop="none").image(image, 40)
    assert (squashed[:, :4] < 10).all()
    assert (squashed[:, 6:34] > 190).all()
    mask = image[..., 0] > 0
    assert Preprocess().mask(mask, 10).all()
    assert Preprocess(crop="none").mask(mask, 40).mean() == 0.75


def test_image_and_mask_stay_in_register() -> None:
    mask = trees.region(400, 300)
    image = np.repeat(mask[..., None].astype(np.uint8) * 255, 3, 2)
    for crop in ("centre-square", "none"):
        small = Preprocess(crop=crop)
        same = (small.image(image, 50)[..., 0] > 127) == small.mask(mask, 50)
        assert same.mean() > 0.99


@pytest.mark.parametrize("size", [32, 64])
def test_shrinking_is_antialiased(size: int) -> None:
    image = trees.pixels(1, 256, 256)
    image[::2] = 255 - image[::2]
    tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float()
    want = torch.nn.functional.interpolate(tensor, (size, size), mode="bicubic", antialias=True)
    got = Preprocess().image(image, size).astype(float)
    assert np.abs(got - want[0].permute(1, 2, 0).numpy()).mean() < 2.5


def test_a_mask_is_true_where_half_the_area_is() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((60, 60)) < 0.5
    share = mask.reshape(12, 5, 12, 5).mean((1, 3))
    assert (Preprocess().mask(mask, 12) == (share >= 0.5)).all()


def test_grey_is_repeated_and_colour_becomes_luma() -> None:
    colour = trees.pixels(0, 30, 30)
    grey = colour[..., :1]
    three = Preprocess().image(grey, 30)
    assert three.shape == (30, 30, 3)
    assert (three == grey).all()
    one = Preprocess(channels=1)
    assert (one.image(grey, 30) == grey).all()
    luma = colour @ np.array([0.299, 0.587, 0.114])
    assert np.abs(one.image(colour, 30)[..., 0] - luma).max() <= 1


def test_plain_values_of_the_time_before_filters_are_unchanged() -> None:
    old = {"crop": "centre-square", "channels": 3}
    assert Preprocess().model_dump() == old
    assert Preprocess.model_validate(old) == Preprocess()
    assert json.dumps(Preprocess().model_dump(mode="json")) == json.dumps(old)
    new = Preprocess(crop="circle", resize="area", filters=["contrast"])
    plain = new.model_dump()
    assert plain["filters"] == [
        {"name": "contrast", "sigma": 20.0, "gain": 4.0, "offset": 128.0, "reference": None}
    ]
    assert json.loads(json.dumps(plain)) == plain
    assert Preprocess.model_validate(plain) == new


def test_pixels_of_old_configurations_are_what_they_were() -> None:
    """Recorded before there were circles, filters and kernels to choose."""
    images = [trees.pixels(k, 60 + 7 * k, 90 - 11 * k) for k in range(5)]
    images += [images[0][..., :1], np.ascontiguousarray(images[1][:40, :40])]
    mask = trees.region(97, 60)
    digest = hashlib.blake2b(digest_size=12)
    for crop in ("centre-square", "none"):
        for channels in (1, 3):
            prepare = Preprocess(crop=crop, channels=channels)
            for size in (16, 40, 64):
                for image in images:
                    digest.update(np.ascontiguousarray(prepare.image(image, size)).tobytes())
                digest.update(prepare.mask(mask, size).tobytes())
    assert digest.hexdigest() == "2e0331081e8b27ffdca5b6f8"


@pytest.mark.parametrize("kernel", ["bicubic", "bilinear", "lanczos", "area"])
def test_kernels_keep_the_mean_and_differ(kernel: str) -> None:
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    small = Preprocess(resize=kernel).image(image, 24).astype(float)
    assert abs(small.mean() - image.mean()) < 1
    blocks = image.reshape(24, 4, 24, 4, 3).mean((1, 3))
    assert (np.abs(small - blocks).max() <= 1) == (kernel == "area")
