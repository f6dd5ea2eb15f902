from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from diascope.data.augment import Augment, _recolour, _warp


def batch(count: int = 5, channels: int = 3, size: int = 24) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    coarse = torch.rand(count, channels, 6, 6, generator=generator)
    x = torch.nn.functional.interpolate(coarse, size=size, mode="bicubic").clamp(0, 1)
    return x.contiguous(memory_format=torch.channels_last)


IDS = torch.tensor([3, 2**62 + 1, 7, 1_000_000_007, 11])
OFF = Augment(flips=False, colour=0.0, affine=0.0, rotation=0.0)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("augment", [Augment(), Augment(affine_as="rotation"), Augment(colour=0)])
def test_an_image_does_not_depend_on_its_batch(augment: Augment, channels: int) -> None:
    x = batch(channels=channels)
    whole = augment(x, IDS, seed=5, epoch=2)
    alone = torch.cat([augment(x[k : k + 1], IDS[k : k + 1], 5, 2) for k in range(5)])
    assert (whole - alone).abs().max() <= 1e-6
    order = torch.tensor([4, 1, 0, 3, 2])
    assert (augment(x[order], IDS[order], 5, 2) - whole[order]).abs().max() <= 1e-6
    assert torch.equal(whole, augment(x, IDS, seed=5, epoch=2))


def test_seed_epoch_and_id_each_change_the_draw() -> None:
    x = batch()[:1].expand(5, -1, -1, -1)
    one = Augment()(x, IDS, 0, 0)
    for other in (Augment()(x, IDS, 1, 0), Augment()(x, IDS, 0, 1), Augment()(x, IDS + 1, 0, 0)):
        assert ((one - other).abs().amax((1, 2, 3)) > 0.01).all()
    assert (one[0] - one[1]).abs().max() > 0.01


def test_nothing_changes_when_all_is_off() -> None:
    x = batch()
    assert torch.equal(OFF(x, IDS, 0, 0), x)


def test_flips_alone_are_flips_of_every_kind() -> None:
    x = batch()[:1].expand(64, -1, -1, -1)
    augment = Augment(flips=True, colour=0, affine=0, rotation=0)
    result = augment(x, torch.arange(64), 0, 0)
    seen = [
        [(image - torch.flip(x[0], dims)).abs().max() < 1e-5 for dims in ([], [1], [2], [1, 2])]
        for image in result
    ]
    counts = np.array(seen).sum(0)
    assert (np.array(seen).sum(1) == 1).all()
    assert counts.min() >= 6


def test_a_quarter_turn_is_exact() -> None:
    x = batch(1)
    zero, one = torch.zeros(1), torch.ones(1)
    turned = _warp(x, (zero, -one, one, zero))
    assert (turned - torch.rot90(x, 1, (2, 3))).abs().max() < 1e-5
    wide = batch(1)[..., :16, :]
    assert (_warp(wide, (one, zero, zero, one)) - wide).abs().max() < 1e-5


@pytest.mark.parametrize("shape", [(24, 24), (16, 24)])
def test_the_warp_is_scipys_affine_with_reflection(shape: tuple[int, int]) -> None:
    x = batch(1)[..., : shape[0], : shape[1]]
    augment = Augment()
    draw = tuple(torch.tensor([[0.7, 0.2, 0.9, 0.1, 0, 0, 0, 0]]).unbind(1))
    a, b, c, d = matrix = augment._matrix(draw)
    into = np.array([[float(d), float(c)], [float(b), float(a)]])  # (row, column)
    centre = (np.array(shape) - 1) / 2
    want = [
        ndimage.affine_transform(
            channel.double().numpy(), into, centre - into @ centre, order=1, mode="reflect"
        )
        for channel in x[0]
    ]
    inner = (slice(None), slice(2, -2), slice(2, -2))
    assert np.abs(_warp(x, matrix)[0].numpy() - np.stack(want))[inner].max() < 2e-3


def test_angles_stay_within_their_bounds_and_fill_them() -> None:
    draws = torch.rand(2000, 8, generator=torch.Generator().manual_seed(0)).unbind(1)
    plain = {"flips": False, "colour": 0.0}
    a, _, c, _ = Augment(**plain, affine=0)._matrix(draws)
    turn = torch.rad2deg(torch.atan2(c, a)).abs()
    assert 48 < turn.max() <= 50.001
    a, b, c, d = Augment(**plain, rotation=0)._matrix(draws)
    assert torch.equal(a, torch.ones_like(a))
    assert torch.equal(c, torch.zeros_like(c))
    assert 9.5 < torch.rad2deg(torch.atan(b)).abs().max() <= 10.001
    a, b, c, d = Augment(**plain, affine_as="rotation")._matrix(draws)
    assert 55 < torch.rad2deg(torch.atan2(c, a)).abs().max() <= 60.001
    assert (a * d - b * c - 1).abs().max() < 1e-5


def test_colours_are_the_three_mixtures() -> None:
    x = batch(2) * 0.5 + 0.2
    brightness, contrast, saturation = torch.tensor([[1.1, 0.9], [0.8, 1.2], [1.2, 0.85]])
    weights = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    for k in range(2):
        grey = (x[k] * weights).sum(0, keepdim=True)
        y = (saturation[k] * x[k] + (1 - saturation[k]) * grey) * brightness[k]
        mean = (y * weights).sum(0).mean()
        y = (contrast[k] * y + (1 - contrast[k]) * mean).clamp(0, 1)
        got = _recolour(x[k : k + 1], [f[k : k + 1] for f in (brightness, contrast, saturation)])
        assert (got[0] - y).abs().max() < 1e-6


def test_the_result_is_an_image_in_the_same_memory_format() -> None:
    for x in (batch(), batch().contiguous(), batch(channels=1)):
        y = Augment(colour=1.0)(x, IDS, 0, 0)
        assert y.stride() == x.stride() or x.shape[1] == 1
        assert float(y.min()) >= 0
        assert float(y.max()) <= 1
        assert y.isfinite().all()
    assert Augment()(batch().bfloat16(), IDS, 0, 0).dtype == torch.bfloat16


@pytest.mark.parametrize("wrong", [{"colour": 1.5}, {"rotation": -1}, {"affine": 90}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augment(**wrong)


@pytest.mark.parametrize("augment", [Augment(), Augment(colour=0), Augment(affine=0, rotation=0)])
@pytest.mark.parametrize("channels", [1, 3])
def test_pieces_of_a_batch_have_the_bits_of_the_whole(
    monkeypatch: pytest.MonkeyPatch, augment: Augment, channels: int
) -> None:
    x = batch(channels=channels)
    whole = augment(x, IDS, 3, 1)
    monkeypatch.setattr("diascope.data.augment._CACHED", 2 * 4 * channels * 24 * 24)
    assert torch.equal(augment(x, IDS, 3, 1), whole)
    assert torch.equal(augment(x.contiguous(), IDS, 3, 1), whole)


def test_bytes_give_what_their_floats_give() -> None:
    x = (batch() * 255).round().to(torch.uint8)
    for augment in (Augment(), Augment(colour=0, affine=0, rotation=0), OFF):
        result = augment(x, IDS, 3, 1)
        assert torch.equal(result, augment(x.float() / 255, IDS, 3, 1))
        assert result.dtype == torch.float32
