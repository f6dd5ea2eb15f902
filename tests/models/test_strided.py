"""Strided convolutions over few channels: the same function, the same gradient."""

from __future__ import annotations

import pytest
import torch
from tests.nets import images
from torch import nn

import diascope.models.frozen
from diascope.attacks.base import logits_and_gradient
from diascope.models import create_model
from diascope.models.frozen import frozen
from diascope.models.heads import cross_entropy
from diascope.models.split import SplitConv2d
from diascope.models.strided import (
    Phases,
    Places,
    StridedConv2d,
    gains_from_phases,
    gains_from_places,
)

CPU = torch.device("cpu")


def fixed(conv: nn.Conv2d) -> nn.Conv2d:
    return conv.requires_grad_(False)


@pytest.mark.parametrize("kernel", [1, 2, 3, 5, 7, (3, 5)])
@pytest.mark.parametrize("stride", [2, 3, 4])
@pytest.mark.parametrize("padding", [0, 1, 3, (2, 0)])
@pytest.mark.parametrize("size", [(8, 8), (9, 13), (16, 7)])
def test_has_the_gradient_of_the_convolution(kernel, stride, padding, size):
    conv = fixed(nn.Conv2d(3, 5, kernel, stride=stride, padding=padding).double())
    new = StridedConv2d.of(conv)
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(new(x), conv(x), atol=0, rtol=0)
    seed = torch.randn_like(conv(x))
    (found,), (true,) = (torch.autograd.grad(m(x), x, seed) for m in (new, conv))
    torch.testing.assert_close(found, true, atol=1e-12, rtol=1e-12)
    assert "Faster" in type(new(x).grad_fn).__name__


def test_its_gradient_has_a_gradient_and_is_mapped_over():
    conv = fixed(nn.Conv2d(3, 5, 5, stride=2, padding=2).double())
    new = StridedConv2d.of(conv)
    x = torch.rand(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: new(x).square(), x)

    def energy(module, x):
        return module(x[None]).square().sum()

    rows = [torch.vmap(torch.func.grad(lambda x, m=m: energy(m, x)))(x) for m in (new, conv)]
    torch.testing.assert_close(*rows)


def test_weights_that_learn_keep_their_gradient():
    conv = nn.Conv2d(3, 5, 4, stride=4)
    new = StridedConv2d.of(conv)
    assert new.weight is conv.weight
    new(torch.rand(1, 3, 8, 8, requires_grad=True)).sum().backward()
    assert conv.weight.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("gains", "conv"),
    [
        (True, nn.Conv2d(3, 64, 7, stride=2, padding=3)),
        (True, nn.Conv2d(8, 16, 16, stride=16)),
        (False, nn.Conv2d(64, 128, 3, stride=2, padding=1)),
        (False, nn.Conv2d(3, 64, 3, padding=1)),
        (False, nn.Conv2d(4, 8, 1, stride=2)),
        (False, nn.Conv2d(4, 8, 3, stride=2, groups=4)),
        (False, nn.Conv2d(3, 8, 3, stride=2, dilation=2)),
        (False, nn.Conv2d(3, 8, 3, stride=2, padding=1, padding_mode="reflect")),
        (False, nn.Conv2d(3, 8, 3, stride=(2, 1))),
        (False, nn.Conv2d(3, 8, 3, stride=2).double()),
        (False, torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, stride=2))),
    ],
)
def test_knows_where_it_gains(gains, conv):
    assert gains_from_phases(conv, CPU) is gains
    assert not gains_from_phases(conv, torch.device("cuda"))


@pytest.mark.parametrize(
    ("gains", "conv"),
    [
        (True, nn.Conv2d(64, 128, 1, stride=2)),
        (True, nn.Conv2d(3, 4, 1, stride=(1, 3)).bfloat16()),
        (False, nn.Conv2d(64, 128, 1)),
        (False, nn.Conv2d(64, 128, 1, stride=2, padding=1)),
        (False, nn.Conv2d(64, 128, 3, stride=2)),
        (False, nn.Conv2d(4, 8, 1, stride=2, groups=4)),
        (False, nn.Conv2d(3, 8, 1, stride=2).double()),
    ],
)
def test_knows_where_a_gradient_is_put_in_places(gains, conv):
    assert gains_from_places(conv, CPU) is gains
    assert not gains_from_places(conv, torch.device("cuda"))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_shortcuts_of_a_frozen_model_have_their_gradients_so(precision, monkeypatch):
    torch.manual_seed(0)
    model, x, y = create_model("resnet18", num_classes=3).eval(), images(2, 64), torch.arange(2)
    with frozen(model, x, precision=precision) as net:
        shortcut = net.body.backbone.layer2[0].downsample[0]
        assert isinstance(shortcut, StridedConv2d)
        assert isinstance(shortcut.gradient, Places)
        _, found = logits_and_gradient(net, x, y, cross_entropy)
        _, none = logits_and_gradient(net, x[:0], y[:0], cross_entropy)
    monkeypatch.setattr(diascope.models.frozen, "gains_from_places", lambda *_: False)
    with frozen(model, x, precision=precision) as net:
        assert type(net.body.backbone.layer2[0].downsample[0]) is nn.Conv2d
        _, true = logits_and_gradient(net, x, y, cross_entropy)
    assert (found - true).norm() < 1e-4 * true.norm()
    assert none.shape == (0, 3, 64, 64)


@pytest.mark.parametrize("stride", [(2, 2), (1, 3)])
def test_gradients_of_many_seeds_are_put_in_places(stride):
    conv = fixed(nn.Conv2d(3, 5, 1, stride=stride).double())
    x = torch.rand(2, 3, 8, 7, dtype=torch.float64, requires_grad=True)
    new = StridedConv2d.of(conv)
    seeds = torch.randn(4, *conv(x).shape, dtype=torch.float64)
    rows = [torch.autograd.grad(m(x), x, seeds, is_grads_batched=True) for m in (new, conv)]
    torch.testing.assert_close(*rows)
    assert torch.autograd.gradgradcheck(lambda x: new(x).square(), x)


LARGE = [nn.Conv2d(3, 8, 7, stride=2, padding=3), nn.Conv2d(8, 16, 1, stride=2)]


@pytest.mark.parametrize("conv", LARGE, ids=["phases", "places"])
def test_the_callers_autocast_around_the_backward_pass_changes_nothing(conv):
    new = StridedConv2d.of(fixed(conv))
    x = torch.rand(2, conv.in_channels, 16, 16, requires_grad=True)
    (expected,) = torch.autograd.grad(new(x).square().sum(), x)
    out = new(x).square().sum()
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = torch.autograd.grad(out, x)
    assert torch.equal(found, expected)


@pytest.mark.parametrize("conv", LARGE, ids=["phases", "places"])
def test_a_forward_in_the_models_own_autocast_has_a_gradient(conv):
    conv, x = fixed(conv), torch.rand(2, conv.in_channels, 16, 16, requires_grad=True)
    gradients = []
    for module in (StridedConv2d.of(conv), conv):
        with torch.autocast("cpu", torch.bfloat16):
            out = module(x)
        assert out.dtype == torch.bfloat16
        gradients += torch.autograd.grad(out.float().square().sum(), x)
    found, expected = gradients
    assert found.dtype == torch.float32
    assert (found - expected).norm() < 0.02 * expected.norm()


@pytest.mark.parametrize("side", [32, 37])
def test_a_frozen_model_has_its_stem_so(side):
    torch.manual_seed(0)
    model, x, y = create_model("resnet18", num_classes=3).eval(), images(2, side), torch.arange(2)
    hooked = []
    model.backbone.conv1.register_forward_hook(lambda *_: hooked.append(True))
    with frozen(model, x, precision="float32") as net:
        hooked.clear()
        assert isinstance(net.body.backbone.conv1, StridedConv2d)
        _, found = logits_and_gradient(net, x, y, cross_entropy)
        assert hooked
    _, true = logits_and_gradient(model, x, y, cross_entropy)
    torch.testing.assert_close(found, true, atol=1e-5, rtol=1e-3)
    assert type(model.backbone.conv1) is nn.Conv2d
    with frozen(model, x, precision="bf16") as net:
        stem = net.body.backbone.conv1
        assert isinstance(stem, SplitConv2d)
        assert isinstance(stem.gradient, Phases)
        _, rough = logits_and_gradient(net, x, y, cross_entropy)
        _, none = logits_and_gradient(net, x[:0], y[:0], cross_entropy)
    assert (rough - true).norm() < 0.1 * true.norm()
    assert none.shape == (0, 3, side, side)
