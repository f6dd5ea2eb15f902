"""The split stem: one term's gradient stands for both."""

from __future__ import annotations

import pickle

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

from diascope.models.pooled import ExactConv2d
from diascope.models.split import SplitConv2d
from diascope.models.strided import Phases

CONVOLUTIONS = {
    "7x7, stride 2": nn.Conv2d(3, 16, 7, stride=2, padding=3),
    "3x3, stride 2": nn.Conv2d(1, 8, 3, stride=2, bias=False),
    "patches": nn.Conv2d(3, 8, 8, stride=8),
    "3x3": nn.Conv2d(3, 8, 3, padding=1),
    "same": nn.Conv2d(3, 8, 3, padding="same"),
    "dilated": nn.Conv2d(3, 8, 3, stride=2, dilation=2),
    "wide": nn.Conv2d(4, 8, (3, 5), stride=(2, 1), padding=(1, 2)),
}


@pytest.mark.parametrize("name", CONVOLUTIONS)
@pytest.mark.parametrize("size", [(24, 24), (17, 22)])
@pytest.mark.parametrize("kind", [SplitConv2d, ExactConv2d])
def test_the_gradient_is_that_of_the_convolution(name, size, kind):
    conv = CONVOLUTIONS[name].requires_grad_(False)
    if kind is ExactConv2d and name == "same":
        pytest.skip("a stem with padding by name has no exact pooling")
    new, gen = kind.of(conv), torch.Generator().manual_seed(0)
    x = torch.rand(2, conv.in_channels, *size, generator=gen).requires_grad_(True)
    seed = torch.randn(conv(x).shape, generator=gen)
    with torch.autocast("cpu", torch.bfloat16):
        out = new(x)
    torch.testing.assert_close(out.float(), conv(x), atol=0.02, rtol=0.02)
    (found,) = torch.autograd.grad(out, x, seed.to(out.dtype))
    (true,) = torch.autograd.grad(conv(x), x, seed)
    assert found.dtype == x.dtype
    assert (found - true).norm() < 0.01 * true.norm()
    in_phases = conv.stride[0] > 1 and name not in ("dilated", "wide")
    assert isinstance(new.gradient, Phases) is in_phases
    taken = type(out.grad_fn).__name__
    assert ("OfOneTerm" in taken or "LowGradient" in taken) is (name != "same")


@pytest.mark.parametrize("name", ["7x7, stride 2", "3x3"])
@pytest.mark.parametrize("kind", [SplitConv2d, ExactConv2d])
def test_no_image_has_a_gradient_too(name, kind):
    new = kind.of(CONVOLUTIONS[name].requires_grad_(False))
    x = torch.rand(0, 3, 16, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        (found,) = torch.autograd.grad(new(x).sum(), x)
    assert found.shape == x.shape


@pytest.mark.parametrize("name", ["7x7, stride 2", "3x3"])
@pytest.mark.parametrize("kind", [SplitConv2d, ExactConv2d])
def test_it_can_be_pickled_and_many_seeds_asked_at_once(name, kind):
    new = pickle.loads(pickle.dumps(kind.of(CONVOLUTIONS[name].requires_grad_(False))))
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        out = new(x)
    seeds = torch.randn(3, *out.shape, dtype=out.dtype)
    (many,) = torch.autograd.grad(out, x, seeds, retain_graph=True, is_grads_batched=True)
    for found, seed in zip(many, seeds, strict=True):
        (one,) = torch.autograd.grad(out, x, seed, retain_graph=True)
        torch.testing.assert_close(found, one, atol=0.01, rtol=0.01)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
@pytest.mark.parametrize("kind", [SplitConv2d, ExactConv2d])
def test_a_tangent_comes_through(kind):
    conv = CONVOLUTIONS["7x7, stride 2"].requires_grad_(False)
    new, x = kind.of(conv), torch.rand(1, 3, 16, 16, requires_grad=True)
    with forward_ad.dual_level(), torch.autocast("cpu", torch.bfloat16):
        moved = forward_ad.unpack_dual(new(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    true = conv(torch.ones(1, 3, 16, 16)) - conv.bias[:, None, None]
    torch.testing.assert_close(moved.float(), true, atol=0.02, rtol=0.02)


def test_it_is_the_same_under_the_transforms_of_functions():
    conv = CONVOLUTIONS["7x7, stride 2"].requires_grad_(False)
    new, x = SplitConv2d.of(conv), torch.rand(3, 3, 16, 16)

    def energy(image: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return new(image[None]).float().square().sum()

    mapped = torch.vmap(torch.func.grad(energy))(x)
    leaf = x.clone().requires_grad_(True)
    (plain,) = torch.autograd.grad(sum(energy(one) for one in leaf), leaf)
    assert (mapped - plain).norm() < 0.02 * plain.norm()


def test_only_plain_convolutions_are_split():
    for conv in (nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(3, 8, 3, padding_mode="reflect")):
        with pytest.raises(ValueError, match="plain"):
            SplitConv2d.of(conv)
