from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tests.nets import Linear, images, small_net
from torch import nn

from diascope.evaluation.sanity import FEWEST, Sanity, module_groups, randomised, sanity_check
from diascope.explain import Gradient, SmoothGrad
from diascope.models import create_model
from diascope.models.frozen import frozen


@dataclass(frozen=True, kw_only=True)
class Edges:
    """A map of the image's edges: it looks right, and has never seen the model."""

    rectification: ClassVar[str] = "absolute"

    def __call__(self, model, x, target, *, generator=None, ids=None):
        across = F.pad(x.diff(dim=3), (0, 1))
        return across.abs() + F.pad(x.diff(dim=2), (0, 0, 0, 1)).abs()


@dataclass(frozen=True, kw_only=True)
class Blank(Edges):
    """A map that says nothing once there is nothing to say: of the head's weights alone."""

    def __call__(self, model, x, target, *, generator=None, ids=None):
        return torch.ones_like(x)


def where_a_square_is(count, seed=0, side=16):
    """Images with a bright square on one of four places, which is the class."""
    g = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % 4
    x = 0.5 * torch.rand(count, 3, side, side, generator=g)
    for image, label in zip(x, y.tolist(), strict=True):
        top, left = 2 + 8 * (label // 2), 2 + 8 * (label % 2)
        image[:, top : top + 4, left : left + 4] += 0.3
    return x, y


@pytest.fixture(scope="module")
def trained():
    """A small net that tells where the square is."""
    net = small_net(4).train()
    x, y = where_a_square_is(64)
    adam = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(60):
        adam.zero_grad()
        F.cross_entropy(net(x), y).backward()
        adam.step()
    net.eval()
    fresh, labels = where_a_square_is(32, seed=1)
    assert (net(fresh).argmax(1) == labels).float().mean() > 0.9
    return net


@pytest.mark.parametrize("explainer", [Gradient(), SmoothGrad(samples=4)], ids=repr)
def test_maps_of_the_model_pass(trained, explainer):
    x, y = where_a_square_is(8, seed=2)
    found = sanity_check(explainer, trained, x, y)
    assert found.passed is True
    assert found.groups == ("9", "4", "3", "1", "0")
    assert set(found.similarity) == {"spearman", "ssim"}
    assert found.similarity["spearman"].shape == (5, 8)
    table = found.table.set_index(["measure", "group"])
    assert table.loc[("spearman", "0"), "mean"] < 0.5
    assert table.loc[("spearman", "0"), "images"] == 8


def test_maps_that_ignore_the_model_fail(trained):
    x, y = where_a_square_is(8, seed=2)
    found = sanity_check(Edges(), trained, x, y)
    assert found.passed is False
    for values in found.similarity.values():
        np.testing.assert_allclose(values, 1.0, atol=1e-5)


def test_maps_without_content_decide_nothing(trained):
    x, y = where_a_square_is(4)
    found = sanity_check(Blank(), trained, x, y)
    assert found.passed is None
    assert (found.table.images == 0).all()
    assert found.table["mean"].isna().all()


def of(*means, count=16, spread=0.1):
    """A cascade of one layer, with so many images of likeness about each mean."""
    ripple = spread * np.where(np.arange(count) % 2, 1, -1)
    names = ("spearman", "ssim")[: len(means)]
    similar = {n: (m + ripple)[None].astype(np.float32) for n, m in zip(names, means, strict=True)}
    return Sanity(("fc",), similar)


def test_a_likeness_about_the_threshold_is_undecided():
    assert of(0.3, 0.2).passed is True
    assert of(0.3, 0.7).passed is False
    assert of(0.7).passed is False
    assert of(0.49).passed is None
    assert of(0.51).passed is None
    assert of(0.2, 0.49).passed is None
    assert of(0.49, 0.8).passed is False  # by one measure it has not changed, for certain
    assert of(0.49, count=2000).passed is True
    (low,) = of(0.49).intervals()["spearman"]
    assert low.low < 0.5 < low.high


def test_few_images_decide_nothing_and_patients_count_once():
    assert of(0.1, count=FEWEST).passed is True
    assert of(0.1, count=FEWEST - 1).passed is None
    assert of(0.9, count=FEWEST - 1).passed is None
    cascade = of(0.45, count=32)
    assert cascade.passed is True
    assert cascade.decided(np.arange(32) % 2) is None  # two patients, one above and one below
    assert cascade.decided(np.zeros(32)) is None
    half = of(0.1, 0.2)
    half.similarity["ssim"][:, 3:] = np.nan
    assert half.passed is None  # by one of the measures too few are defined
    half.similarity["ssim"][:] = np.nan
    assert half.passed is True


def test_an_image_has_its_row(trained):
    x, y = where_a_square_is(3, seed=2)
    found = sanity_check(Gradient(), trained, x, y)
    rows = found.per_image
    assert len(rows) == 3 * 5 * 2
    one = rows[(rows.image == 1) & (rows.group == "3") & (rows.measure == "ssim")]
    assert one.value.item() == pytest.approx(found.similarity["ssim"][2, 1])
    means = rows.groupby(["group", "measure"]).value.mean()
    for row in found.table.itertuples():
        assert means[row.group, row.measure] == pytest.approx(row.mean, abs=1e-5)


def test_the_same_seed_the_same_cascade_and_the_model_is_left_alone(trained):
    x, y = where_a_square_is(3)
    before = {k: v.clone() for k, v in trained.state_dict().items()}
    torch.manual_seed(5)
    first = sanity_check(Gradient(), trained, x, y, seed=1)
    state = torch.get_rng_state()
    again = sanity_check(Gradient(), trained, x, y, seed=1)
    other = sanity_check(Gradient(), trained, x, y, seed=2)
    np.testing.assert_array_equal(first.similarity["ssim"], again.similarity["ssim"])
    assert not np.array_equal(first.similarity["ssim"], other.similarity["ssim"])
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in trained.state_dict().items())


def test_weights_are_lost_from_the_head_down():
    net = small_net()
    start = {k: v.clone() for k, v in net.state_dict().items()}
    seen = []
    for _, changed in randomised(net):
        now = changed.state_dict()
        seen.append({k for k in now if not torch.equal(now[k], start[k])})
    assert seen[0] == {"9.weight", "9.bias"}
    assert seen[1] == seen[0] | {"4.running_mean", "4.running_var"}  # weights are 1, biases 0
    assert seen[2] == seen[1] | {"3.weight", "3.bias"}
    assert {f"{k}.{part}" for k in (0, 3, 9) for part in ("weight", "bias")} <= seen[-1]
    assert torch.equal(now["1.running_mean"], torch.zeros(8))
    assert torch.equal(now["1.running_var"], torch.ones(8))


def test_groups_of_a_backbone_are_its_stages():
    model = create_model("resnet18", 3, pretrained=False, layers=[1, 1, 1, 1], channels=[4] * 4)
    names = [name for name, _ in randomised(model)]
    assert names == ["fc", "layer4", "layer3", "layer2", "conv1 to layer1"]
    held = [name for group in module_groups(model) for name in group]
    owners = {name.rpartition(".")[0] for name, _ in model.named_parameters()}
    assert sorted(held) == sorted(owners)
    with frozen(model, torch.rand(1, 3, 32, 32)) as net:
        assert [name for name, _ in randomised(net)] == names


class Odd(nn.Module):
    """A model whose parameter no module knows how to draw, and that has one number of its own."""

    def __init__(self):
        super().__init__()
        self.inner = Linear(torch.randn(2, 3, 8, 8) * 3 + 5, torch.tensor([1.0, 4.0]))
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return self.scale * self.inner(x)


def test_parameters_of_no_known_kind_keep_their_mean_and_spread():
    model = Odd()
    *_, (_, changed) = randomised(model)
    assert changed.scale == 2.0
    weight, drawn = model.inner.weight.detach(), changed.inner.weight.detach()
    assert not torch.equal(weight, drawn)
    assert drawn.mean().item() == pytest.approx(weight.mean().item(), abs=0.6)
    assert drawn.std().item() == pytest.approx(weight.std().item(), rel=0.2)
    found = sanity_check(Gradient(), model, images(3, side=16)[..., :8, :8], 1, measures=None)
    assert found.groups[-1] in ("inner", "model to inner", "inner to model")
