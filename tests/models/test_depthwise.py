"""Depthwise convolutions within a net in bfloat16."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diascope.attacks.base import logits_and_gradient
from diascope.attacks.losses import loss_of
from diascope.models import create_model
from diascope.models.depthwise import in_float32, is_in_float32, is_slow_in_bf16
from diascope.models.frozen import frozen

CPU = torch.device("cpu")


class Doubling(nn.Conv2d):
    """A convolution of another's class, with a forward of its own."""

    def forward(self, x):
        return 2 * super().forward(x)


def depthwise(kind=nn.Conv2d, stride=2, groups=8):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(8, 8, 3, stride, 1, groups=groups)


@pytest.mark.parametrize("kind", [nn.Conv2d, Doubling])
def test_it_computes_in_float32_and_gives_what_is_around(kind):
    conv, x = depthwise(kind), torch.randn(2, 8, 9, 9)
    kept = in_float32(conv)
    assert is_in_float32(kept)
    assert not is_in_float32(conv)
    assert isinstance(kept, kind)
    assert kept.weight is conv.weight
    assert torch.equal(kept(x), conv(x))
    with torch.autocast("cpu", torch.bfloat16):
        out = kept(x)
    assert torch.equal(out, conv(x).bfloat16())
    assert kept(x.bfloat16()).dtype == torch.bfloat16
    assert type(in_float32(depthwise(kind))) is type(kept)


def test_only_strided_ones_of_few_channels_on_a_cpu_are_slow():
    assert is_slow_in_bf16(depthwise(), CPU)
    assert is_slow_in_bf16(depthwise(Doubling), CPU)
    assert not is_slow_in_bf16(depthwise(stride=1), CPU)
    assert not is_slow_in_bf16(depthwise(groups=2), CPU)
    assert not is_slow_in_bf16(depthwise(groups=1), CPU)
    assert not is_slow_in_bf16(in_float32(depthwise()), CPU)
    assert not is_slow_in_bf16(depthwise(), torch.device("cuda"))


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "mobilenetv3_small_050"])
def test_a_mobile_net_in_bfloat16_has_them_in_float32_and_its_gradient_is_near(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = create_model(name, num_classes=3).eval()
    x, y = torch.rand(4, 3, 64, 64), torch.arange(4) % 3
    loss, found = loss_of("margin"), {}
    for precision in ("float32", "bf16"):
        with frozen(net, x, precision=precision) as model:
            kept = [m for m in model.__dict__["_body"].modules() if is_in_float32(m)]
            found[precision] = logits_and_gradient(model, x, y, loss)[1].flatten(1)
            strided = [m for m in net.modules() if is_slow_in_bf16(m, CPU)]
            assert len(kept) == (len(strided) if precision == "bf16" else 0)
            assert strided
            assert {m.weight.dtype for m in kept} <= {torch.float32}
    assert (torch.cosine_similarity(found["float32"], found["bf16"]) > 0.9).all()
    assert not any(is_in_float32(m) for m in net.modules())
