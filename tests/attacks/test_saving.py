from __future__ import annotations

import numpy as np
import pytest
import torch
from tests.nets import Linear, images, small_net

from diascope.attacks import PGD, Threat
from diascope.attacks.base import verdict
from diascope.attacks.saving import (
    RoundedAwayWarning,
    broken_before_saving,
    read_images,
    save_images,
)
from diascope.data import Preprocess
from diascope.data.readers import FileReader
from diascope.errors import UserError


def eight_bits(count=6, side=16, channels=3):
    return (images(count, side, channels) * 255).round() / 255


def fragile(channels=3):
    """A model whose every image stands near an edge: many pixels, each with a say."""
    g = torch.Generator().manual_seed(1)
    weight = torch.randn(2, channels, 16, 16, generator=g)
    return Linear(weight, -weight.sum((1, 2, 3)) / 2)


def attacked(model, x, eps=8 / 255, norm="linf"):
    with torch.no_grad():
        y = model(x).argmax(1)
    g = torch.Generator().manual_seed(0)
    return PGD(norm=norm, eps=eps, steps=20)(model, x, y, generator=g), y


def named(count):
    return [f"case-{i}" for i in range(count)]


@pytest.mark.parametrize("channels", [1, 3])
def test_at_8_bits_what_is_read_back_still_fools(tmp_path, channels):
    model, x = fragile(channels), eight_bits(channels=channels)
    x_adv, y = attacked(model, x)
    broken = verdict(model, x_adv, y)
    assert broken.sum() >= 4
    saved = save_images(tmp_path, x_adv, x, named(6))
    names, read = read_images(tmp_path)
    assert names == tuple(named(6))
    assert torch.equal(read, saved)
    lost = broken_before_saving(model, x_adv, saved, y, names)
    assert lost == ()
    assert torch.equal(verdict(model, read, y), broken)
    assert (Threat("linf", 0).size(read - x) <= 8 / 255 + 1e-6).all()


def test_the_readers_of_datasets_see_the_same_pixels(tmp_path):
    x = eight_bits()
    x_adv, _ = attacked(small_net(), x)
    saved = save_images(tmp_path, x_adv, x, named(6))
    for i, name in enumerate(named(6)):
        pixels = FileReader(tmp_path).image(f"{name}.png")
        prepared = Preprocess().image(pixels, 16)
        assert np.array_equal(prepared, pixels)
        image = torch.from_numpy(pixels.copy()).permute(2, 0, 1).float().div(255)
        assert torch.equal(image, saved[i])


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_rounding_never_leaves_the_ball(tmp_path, norm):
    eps = {"linf": 4.7 / 255, "l2": 0.7, "l1": 9.0}[norm]
    x = eight_bits()
    x_adv, _ = attacked(small_net(), x, eps, norm)
    saved = save_images(tmp_path, x_adv, x, named(6))
    threat = Threat(norm, eps)
    assert (threat.size(saved - x) <= eps + 1e-6).all()
    assert (threat.size(saved - x) <= threat.size(x_adv - x) + 1e-6).all()
    assert (threat.size(saved - x) > 0).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_float_files_hold_every_bit(tmp_path, dtype):
    x = images(4).to(dtype)
    x_adv = (x + 1e-3 * torch.randn(x.shape, dtype=torch.float64).to(dtype)).clamp(0, 1)
    saved = save_images(tmp_path, x_adv, x, named(4), bits="float")
    _, read = read_images(tmp_path)
    assert torch.equal(read, saved)
    assert torch.equal(read.to(dtype), x_adv)
    assert read.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)


def test_float_files_are_judged_as_the_attack_was(tmp_path):
    model, x = fragile(), images(6)  # originals that are not at 8 bits
    x_adv, y = attacked(model, x, 0.01)
    assert 0 < verdict(model, x_adv, y).sum() < 6
    save_images(tmp_path, x_adv, x, named(6), bits="float")
    _, read = read_images(tmp_path)
    assert torch.equal(verdict(model, read, y), verdict(model, x_adv, y))


def test_what_rounding_undoes_is_named(tmp_path):
    """A change of 1.9 levels becomes one of 1, which is not enough here; one of 4 stays."""
    weight = torch.ones(2, 1, 2, 2)
    weight[0] = 0
    x = torch.full((3, 1, 2, 2), 100 / 255)
    x_adv = x + torch.tensor([1.9, 4.0, 0.5])[:, None, None, None] / 255
    model = Linear(weight, torch.tensor([4 * 101.5 / 255, 0.0]))  # breaks at 101.5 levels a pixel
    y = torch.zeros(3).long()
    with pytest.warns(RoundedAwayWarning, match="1 of 3 images"):
        saved = save_images(tmp_path, x_adv, x, ["a", "b", "c"])
    assert verdict(model, x_adv, y).tolist() == [True, True, False]
    assert broken_before_saving(model, x_adv, saved, y, ["a", "b", "c"]) == ("a",)
    reached = broken_before_saving(model, x_adv, saved, 1 - y, ["a", "b", "c"], targeted=True)
    assert reached == ("a",)


def test_an_eps_below_one_grey_level_does_not_exist_at_8_bits(tmp_path):
    x = eight_bits()
    x_adv, _ = attacked(small_net(), x, 0.99 / 255)
    with pytest.warns(RoundedAwayWarning, match=r"6 of 6 .*case-0, .*bits='float'"):
        saved = save_images(tmp_path, x_adv, x, named(6))
    assert torch.equal(saved, x)
    whole, _ = attacked(small_net(), x, 1 / 255)
    assert not torch.equal(save_images(tmp_path, whole, x, named(6)), x)


def test_unchanged_images_are_no_loss(tmp_path):
    x = eight_bits()
    assert torch.equal(save_images(tmp_path, x, x, named(6)), x)  # and no warning


def test_read_in_the_order_asked_for(tmp_path):
    x = eight_bits(3)
    save_images(tmp_path, x, x, ["b", "c.d", "a"])
    (tmp_path / ".a.png.tmp.png").write_bytes(b"half a file of a killed process")
    assert read_images(tmp_path)[0] == ("a", "b", "c.d")
    names, read = read_images(tmp_path, ["c.d", "b"])
    assert names == ("c.d", "b")
    assert torch.equal(read, x[[1, 0]])


def test_no_images_at_all(tmp_path):
    x = eight_bits(3)[:0]
    assert len(save_images(tmp_path / "none", x, x, [])) == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"names": ["a", "b"]}, "2 names for 3 images"),
        ({"names": ["a", "b", "A"]}, "none twice"),
        ({"names": ["a", "b", "../c"]}, "not a plain file name"),
        ({"names": ["a", "b", ".c"]}, "not a plain file name"),
        ({"bits": 16}, "8 or 'float'"),
        ({"x": images(2)}, "differ"),
        ({"x": images(3)}, "not at 8 bits"),
        ({"x_adv": images(3, channels=2), "x": images(3, channels=2)}, "2 channels"),
        ({"x_adv": images(3) * 255}, r"lie in \[0, 1\]"),
    ],
)
def test_what_cannot_be_saved_is_refused(tmp_path, change, message):
    given = {"x_adv": eight_bits(3), "x": eight_bits(3), "names": ["a", "b", "c"], "bits": 8}
    with pytest.raises(ValueError, match=message):
        save_images(tmp_path, **{**given, **change})
    assert not list(tmp_path.iterdir())


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UserError, match="no images here"):
        read_images(tmp_path)
    x = eight_bits(2)
    save_images(tmp_path, x, x, ["a", "b"])
    with pytest.raises(UserError, match="no image 'd'"):
        read_images(tmp_path, ["a", "d"])
    small = eight_bits(1, side=8)
    save_images(tmp_path, small, small, ["c"])
    with pytest.raises(UserError, match=r"c\.png: 8x8 with 3 channels, float32, while a\.png"):
        read_images(tmp_path)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"a\.png: is not an image"):
        read_images(tmp_path)
    save_images(tmp_path, x, x, ["e", "f"], bits="float")
    with pytest.raises(UserError, match="keep them apart"):
        read_images(tmp_path)


@pytest.mark.parametrize("content", ["pickle", "cut", "flat"])
def test_a_float_file_is_never_unpickled(tmp_path, content):
    file = tmp_path / "a.npy"
    if content == "pickle":
        np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    elif content == "flat":
        np.save(file, np.zeros(3, np.float32))
    else:
        x = images(1)
        save_images(tmp_path, x, x, ["a"], bits="float")
        file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(UserError, match=r"a\.npy"):
        read_images(tmp_path)
