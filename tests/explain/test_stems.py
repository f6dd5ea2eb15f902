"""Explainers that go by the stem: the same maps as without, for less."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.nets import images, small_net
from torch import nn

import diascope.explain.covered.choice
import diascope.explain.sums
import diascope.models.stem
from diascope.explain import IntegratedGradients, Occlusion, SmoothGrad
from diascope.explain.chunks import at_most, chunks
from diascope.explain.covered import Covered, CoveredMaps, Windows, covered_of
from diascope.explain.gradient import input_gradient
from diascope.explain.sums import AtImages, AtStem, sums_of
from diascope.models import create_model
from diascope.models.frozen import frozen
from diascope.models.stem import WORTH, Stem, stem_apart

TARGET = torch.tensor([0, 1, 2, 1, 0])
EXPLAINERS = {
    "integrated gradients": IntegratedGradients(steps=9, baseline="uniform", draws=2),
    "smoothgrad": SmoothGrad(samples=8),
    "probability": IntegratedGradients(steps=8, baseline="black", of="probability"),
    "occlusion": Occlusion(patch=5, stride=3),
    "blurred": Occlusion(patch=6, fill="blur"),
    "mean": Occlusion(patch=6, stride=5, fill="mean"),
}


@pytest.fixture(autouse=True)
def worth_it(monkeypatch):
    monkeypatch.setattr(diascope.models.stem, "WORTH", 24)


def both_ways(monkeypatch, explainer, *args):
    """The maps by the stem, and without it, from the same random draws."""
    parted = []
    told = diascope.models.stem.stem_apart

    def apart(*args, **options):
        parted.append(told(*args, **options))
        return parted[-1]

    def asked(by):
        for module in (diascope.explain.sums, diascope.explain.covered.choice):
            monkeypatch.setattr(module, "stem_apart", by)
        return explainer(*args, generator=torch.Generator().manual_seed(3))

    found = asked(apart)
    assert parted
    assert all(isinstance(stem, Stem) for stem in parted)
    return found, asked(lambda *_, **__: None)


@pytest.mark.parametrize("rows", [1, 3, 4, 100])
@pytest.mark.parametrize("name", EXPLAINERS)
def test_maps_are_the_same_without_the_stem(name, rows, monkeypatch):
    with at_most(rows):
        found, true = both_ways(monkeypatch, EXPLAINERS[name], small_net(), images(5), TARGET)
    scale = float(true.abs().max())
    torch.testing.assert_close(found, true, atol=1e-5 * scale + 2e-7, rtol=1e-4)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_so_are_those_of_grey_and_oblong_images(name, monkeypatch):
    x = images(5, 20, channels=1)[:, :, 1:, :15].transpose(2, 3)
    net = small_net(channels=1)
    found, true = both_ways(monkeypatch, EXPLAINERS[name], net, x, TARGET)
    scale = float(true.abs().max())
    torch.testing.assert_close(found, true, atol=1e-5 * scale + 2e-7, rtol=1e-4)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_in_bfloat16_they_are_as_near_to_those_of_float32(name, monkeypatch):
    net, x = create_model("resnet18", num_classes=3).eval(), images(5, 32)
    true = EXPLAINERS[name](net, x, TARGET, generator=torch.Generator().manual_seed(3))
    rough = replace(EXPLAINERS[name], precision="bf16")
    gaps = [float((m - true).norm()) for m in both_ways(monkeypatch, rough, net, x, TARGET)]
    assert gaps[0] <= 1.3 * gaps[1] + 1e-6


def test_the_stem_is_asked_less_often(monkeypatch):
    net, x, passed = small_net(), images(2), []
    before = Stem.convolved
    monkeypatch.setattr(
        Stem, "convolved", lambda *args: passed.append(len(args[1])) or before(*args)
    )
    with frozen(net, x, precision="float32") as ready:
        stem_apart(ready, x)  # its trial is over
        passed.clear()
        with at_most(5):
            IntegratedGradients(steps=10)(ready, x, 0)
    assert sum(passed) == 4  # two ends of two


def test_sums_hold_only_the_images_at_work(monkeypatch):
    net, x, held = small_net(), images(6), []
    with frozen(net, x, precision="float32") as ready:
        sums = sums_of(ready, x, torch.zeros(6).long(), "logit", 8)
        assert isinstance(sums, AtStem)
        for part in ("maps", "rest", "to_images"):
            told = getattr(sums.stem, part)

            def look(*args, told=told):
                held.append((len(sums._sums), len(sums._ways)))
                return told(*args)

            monkeypatch.setattr(sums.stem, part, look)
        for chunk in chunks(6, 8, 20):
            ones = torch.ones(len(chunk.step))
            sums.add_between(chunk, (torch.zeros_like(x), x), ones / 2, ones)
        assert len(held) == 12 + 3 + 6
        assert all(a <= 1 and b <= 1 for a, b in held)
        assert (len(sums._sums), len(sums._ways)) == (0, 0)
        true = 8 * input_gradient(ready, x / 2, torch.zeros(6).long())
    torch.testing.assert_close(sums.total, true, atol=1e-5, rtol=1e-4)


def test_of_few_steps_gradients_are_summed_at_the_images():
    x, y = images(6), torch.zeros(6).long()
    with frozen(small_net(), x, precision="float32") as ready:
        assert type(sums_of(ready, x, y, "logit", 7)) is AtImages
        assert type(sums_of(ready, x, y, "logit", 8)) is AtStem
        assert type(sums_of(ready, x[:0], y[:0], "logit", 8)) is AtImages


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_covered_maps_are_those_of_covered_images(data):
    draw = data.draw
    kernel, stride = draw(st.integers(1, 7)), draw(st.integers(1, 5))
    dilation = draw(st.integers(1, 2))
    height, width = draw(st.integers(8, 20)), draw(st.integers(8, 20))
    reach = dilation * (kernel - 1) + 1
    padding = draw(st.tuples(st.integers(0, 3), st.integers(0, 3)))
    if reach > min(height, width):
        return
    conv = nn.Conv2d(3, 4, kernel, stride, padding, dilation)
    net = nn.Sequential(conv, nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    x, patch = images(2, 20)[:, :, :height, :width], draw(st.integers(1, 8))
    step = draw(st.integers(1, patch))
    windows = Windows.of(height, patch, step), Windows.of(width, patch, step)
    fill = torch.rand(2, 3, 1, 1)
    with frozen(net.eval(), x, precision="float32") as ready, torch.no_grad():
        covered = covered_of(ready, x, fill, windows, WORTH)
        assert isinstance(covered, CoveredMaps)
        places = torch.ones(2, *(len(each.spans) for each in windows)).nonzero().unbind(1)
        found = covered.maps(*places)
        true = covered.stem.maps(Covered(ready, x, fill, windows).images(*places))
        torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(covered.whole(torch.arange(2)), net(x), atol=1e-5, rtol=1e-4)


def test_windows_are_cut_off_at_the_edge():
    windows = Windows.of(10, 4, 3)
    assert windows.spans == ((0, 4), (3, 7), (6, 10))
    assert Windows.of(11, 4, 3).spans[-1] == (9, 11)
    matrix = windows.matrix(torch.zeros(1))
    assert matrix.sum(1).tolist() == [4, 4, 4]
    assert matrix[1].nonzero().flatten().tolist() == [3, 4, 5, 6]
