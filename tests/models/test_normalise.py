"""Normalisation: one function, whatever the memory format, and whoever looks on."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn
from torch.autograd import forward_ad

from diascope.models.normalise import Normalise

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LAST = torch.channels_last


def images(channels: int = 3, size: tuple[int, int] = (9, 14), batch: int = 4) -> torch.Tensor:
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(0))


def steps(module: nn.Module, x: torch.Tensor) -> int:
    """How many operations autograd has noted on the way from the images."""
    node, count = module(x.requires_grad_(True)).grad_fn, 0
    while node is not None:
        node, count = (node.next_functions or ((None, 0),))[0][0], count + 1
    return count


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
@pytest.mark.parametrize(("size", "batch"), [((9, 14), 4), ((1, 7), 1), ((5, 1), 2), ((1, 1), 3)])
def test_it_is_the_same_to_the_bit_in_every_memory_format(channels, dtype, size, batch):
    module = Normalise(MEAN[:channels], STD[:channels])
    x = images(channels, size, batch).to(dtype)
    seen = []
    for each in (x, x.contiguous(memory_format=LAST), torch.stack([x, x], -1)[..., 0]):
        each = each.detach().requires_grad_(True)
        found = module(each)
        (gradient,) = torch.autograd.grad(found.square().sum(), each)
        seen.append((found.detach(), gradient))
    expected = (x - module.mean) / module.std
    assert expected.dtype == seen[0][0].dtype
    for found, gradient in seen:
        torch.testing.assert_close(found, expected, atol=0, rtol=0)
        torch.testing.assert_close(gradient, seen[0][1], atol=0, rtol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_a_tangent_comes_through():
    module, x = Normalise(MEAN, STD), images().contiguous(memory_format=LAST)
    with forward_ad.dual_level():
        moved = forward_ad.unpack_dual(module(forward_ad.make_dual(x, torch.ones_like(x)))).tangent
    torch.testing.assert_close(moved, torch.ones_like(x) / module.std)


def test_channels_last_stays_so_and_goes_row_by_row():
    module, x = Normalise(MEAN, STD), images()
    last = x.contiguous(memory_format=LAST)
    assert module(last).is_contiguous(memory_format=LAST)
    assert module(x).is_contiguous()
    assert steps(module, last) > steps(module, x)


@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")  # deprecated, and still used
def test_who_records_or_transforms_it_meets_the_plain_operations():
    module, x = Normalise(MEAN, STD), images().contiguous(memory_format=LAST)
    expected = module(x)
    traced = torch.jit.trace(module, x)
    exported = torch.export.export(module, (x,)).module()
    for recorded in (traced, exported, fx.symbolic_trace(module)):
        torch.testing.assert_close(recorded(x), expected, atol=0, rtol=0)
    wide = images(size=(5, 20))
    torch.testing.assert_close(traced(wide), module(wide))  # no size is written into it
    torch.testing.assert_close(
        torch.func.vmap(lambda one: module(one[None])[0])(x), expected, atol=0, rtol=0
    )
    _, moved = torch.func.jvp(module, (x,), (torch.ones_like(x),))
    torch.testing.assert_close(moved, torch.ones_like(x) / module.std)


def test_its_gradient_has_a_gradient():
    module = Normalise(MEAN, STD).double()
    x = images(size=(2, 3)).double().contiguous(memory_format=LAST).requires_grad_(True)
    assert torch.autograd.gradgradcheck(lambda x: module(x).pow(3), (x,))
