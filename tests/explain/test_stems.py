"""Explainers that go by the stem: the same maps as without, for less."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.nets import images, small_net
from torch import Tensor, nn

import diascope.explain.covered
import diascope.explain.sums
from diascope.explain import IntegratedGradients, Occlusion, SmoothGrad
from diascope.explain.chunks import at_most, chunks
from diascope.explain.covered import Covered, CoveredMaps, Windows, covered_of
from diascope.explain.gradient import input_gradient
from diascope.explain.sums import AtImages, AtStem, sums_of
from diascope.models.frozen import frozen
from diascope.models.stem import Stem, stem_apart

TARGET = torch.tensor([0, 1, 2, 1, 0])
EXPLAINERS = {
    "integrated gradients": IntegratedGradients(steps=7, baseline="uniform", draws=2),
    "smoothgrad": SmoothGrad(samples=6),
    "probability": IntegratedGradients(steps=5, baseline="black", of="probability"),
    "occlusion": Occlusion(patch=5, stride=3),
    "blurred": Occlusion(patch=6, fill="blur"),
    "mean": Occlusion(patch=6, stride=5, fill="mean"),
}


class Blurred(nn.Module):
    """A net behind a blur: affine, but a covered pixel is seen beside its place."""

    def __init__(self) -> None:
        super().__init__()
        self.net = small_net()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(nn.functional.avg_pool2d(x, 3, 1, 1))


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@pytest.mark.parametrize("rows", [1, 3, 4, 100])
@pytest.mark.parametrize("name", EXPLAINERS)
def test_maps_are_the_same_without_the_stem(name, rows, monkeypatch):
    net, x, explainer = small_net(), images(5), EXPLAINERS[name]
    with at_most(rows):
        found = explainer(net, x, TARGET, generator=seeded())
        for module in (diascope.explain.sums, diascope.explain.covered):
            monkeypatch.setattr(module, "stem_apart", lambda *_: None)
        true = explainer(net, x, TARGET, generator=seeded())
    scale = float(true.abs().max())
    torch.testing.assert_close(found, true, atol=1e-5 * scale + 2e-7, rtol=1e-4)


def test_the_stem_is_asked_less_often():
    net, x, passed = small_net(), images(2), []
    with frozen(net, x, precision="float32") as ready:
        ready.body[3].register_forward_hook(lambda m, i, o: passed.append(("rest", len(o))))
        stem_apart(ready, x)  # its trial is over
        passed.clear()
        told = type(stem_apart(ready, x).conv)
        before = told.forward
        try:
            told.forward = lambda self, x: (
                (passed.append(("stem", len(x))) if self.in_channels == 3 else None)
                or before(self, x)
            )
            with at_most(5):
                IntegratedGradients(steps=10)(ready, x, 0)
        finally:
            told.forward = before
    assert sum(n for what, n in passed if what == "rest") >= 20
    assert sum(n for what, n in passed if what == "stem") <= 4 + 1  # two ends of two; a first look


def test_sums_hold_only_the_images_at_work():
    net, x, held = small_net(), images(6), []
    with frozen(net, x, precision="float32") as ready:
        sums = sums_of(ready, x, 5)
        assert isinstance(sums, AtStem)
        for chunk in chunks(6, 5, 4):
            ones = torch.ones(len(chunk.step))
            ends = torch.zeros_like(x), x
            sums.add_between(chunk, ends, ones / 2, torch.zeros(len(ones)).long(), "logit", ones)
            held.append((len(sums._sums), len(sums._ends)))
        assert max(held) <= (1, 1)
        assert held[-1] == (0, 0)
        true = 5 * input_gradient(ready, x / 2, torch.zeros(6).long())
        torch.testing.assert_close(sums.total, true, atol=1e-5, rtol=1e-4)


def test_of_few_steps_gradients_are_summed_at_the_images():
    with frozen(small_net(), images(1), precision="float32") as ready:
        assert type(sums_of(ready, images(1), 3)) is AtImages
        assert type(sums_of(ready, images(1), 4)) is AtStem


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
        covered = covered_of(ready, x, fill, windows)
        assert isinstance(covered, CoveredMaps)
        places = torch.ones(2, *(len(each.spans) for each in windows)).nonzero().unbind(1)
        found = covered.maps(*places)
        true = covered.stem.maps(Covered(ready, x, fill, windows).images(*places))
        torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(covered.whole(torch.arange(2)), net(x), atol=1e-5, rtol=1e-4)


def test_a_model_that_mixes_pixels_before_its_stem_is_covered_plainly():
    x, net = images(5, side=24), Blurred()
    windows = Windows.of(24, 6, 3), Windows.of(24, 6, 3)
    with frozen(net, x, precision="float32") as ready, torch.no_grad():
        assert isinstance(stem_apart(ready, x), Stem)
        assert type(covered_of(ready, x, x.new_zeros(5, 1, 1, 1), windows)) is Covered


def test_windows_are_cut_off_at_the_edge():
    windows = Windows.of(10, 4, 3)
    assert windows.spans == ((0, 4), (3, 7), (6, 10))
    assert Windows.of(11, 4, 3).spans[-1] == (9, 11)
    matrix = windows.matrix(torch.zeros(1))
    assert matrix.sum(1).tolist() == [4, 4, 4]
    assert matrix[1].nonzero().flatten().tolist() == [3, 4, 5, 6]
