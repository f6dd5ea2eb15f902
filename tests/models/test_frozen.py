"""The frozen model: the same function of the image, and nothing left behind."""

from __future__ import annotations

import threading

import pytest
import torch
import torch.nn.functional as F
from tests.nets import images, small_net
from torch import nn

from diascope.attacks.base import logits_and_gradient, verdict
from diascope.attacks.losses import margin
from diascope.models import create_model
from diascope.models.dense import DenseConv2d
from diascope.models.folding import folding_plan
from diascope.models.frozen import FrozenModel, frozen
from diascope.models.heads import cross_entropy
from diascope.models.modes import exactly
from diascope.models.split import SplitConv2d


def woken(model: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch-norm statistics and weights of its own."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
            ):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) * (high - low) + low)
    return model.eval()


def gradient(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return logits_and_gradient(model, x, y, cross_entropy)[1]


BACKBONES = [
    "resnet18",
    "densenet121",
    "efficientnet_b0",
    "mobilenetv3_small_100",
    "vit_tiny_patch16_224",
]


@pytest.mark.parametrize("name", BACKBONES)
def test_gives_the_same_logits_and_gradients(name):
    options = {"img_size": 32} if name.startswith("vit") else {}
    torch.manual_seed(0)
    model = woken(create_model(name, num_classes=4, **options)).double()
    x, y = images(3, side=32).double(), torch.arange(3)
    with frozen(model, x) as net:
        torch.testing.assert_close(net(x), model(x), atol=1e-9, rtol=1e-7)
        torch.testing.assert_close(gradient(net, x, y), gradient(model, x, y), atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(2, 2), (1, 3), (3, 1), (4, 4)])
@pytest.mark.parametrize("kernel", [{"padding": 1}, {"padding": 0}, {"dilation": 2, "padding": 2}])
@pytest.mark.parametrize("bias", [True, False])
def test_a_convolution_written_out_is_the_same(stride, size, kernel, bias):
    side = (min(3, size[0]), min(3, size[1])) if kernel["padding"] == 0 else 3
    conv = nn.Conv2d(5, 7, side, stride=stride, bias=bias, **kernel).double()
    dense = DenseConv2d(conv, size)
    x = torch.randn(4, 5, *size, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(dense(x), conv(x))
    seed = torch.randn_like(conv(x))
    (found,), (true,) = (torch.autograd.grad(m(x), x, seed) for m in (dense, conv))
    torch.testing.assert_close(found, true)
    other = torch.randn(2, 5, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(dense(other), conv(other))


def test_writes_out_the_convolutions_of_the_smallest_maps():
    model = woken(create_model("resnet18", num_classes=2))
    tiny = dict(folding_plan(model, images(1, side=64)).tiny)
    assert set(tiny.values()) == {(2, 2)}
    assert set(tiny) == {f"backbone.layer4.{n}" for n in ("0.conv2", "1.conv1", "1.conv2")}
    assert folding_plan(model, images(1, side=224)).tiny == ()
    x, y = images(2, side=64), torch.arange(2)
    with frozen(model, x) as net:
        torch.testing.assert_close(net(x), model(x), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(gradient(net, x, y), gradient(model, x, y), atol=1e-5, rtol=1e-3)
        larger = images(2, side=96)
        torch.testing.assert_close(net(larger), model(larger), atol=1e-4, rtol=1e-4)
    with frozen(model, x, precision="bf16") as net:
        torch.testing.assert_close(net(x), model(x), atol=0.1, rtol=0.1)


def test_folds_every_batch_norm_that_follows_a_convolution():
    plan = folding_plan(woken(create_model("resnet18", num_classes=2)), images(1, side=32))
    assert len(plan.pairs) == 20  # 16 in the blocks, 3 shortcuts, the stem
    assert plan.stem == "backbone.conv1"
    model = create_model("mobilenetv3_small_100", num_classes=2).eval()
    assert folding_plan(model, images(1, side=32)).pairs  # timm's norm with its activation inside


class Peeking(nn.Module):
    """Reads the convolution's output beside its batch-norm, outside of any module."""

    def __init__(self, use: bool):
        super().__init__()
        self.conv, self.norm, self.use = nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), use

    def forward(self, x):
        h = self.conv(x)
        out = self.norm(h)
        return (out + h if self.use else out).mean((2, 3))


def test_folds_nothing_where_the_logits_would_change():
    x = images(2, side=8)
    assert folding_plan(woken(Peeking(False)), x[:1]).pairs == (("conv", "norm"),)
    model = woken(Peeking(True))
    assert folding_plan(model, x[:1]).pairs == ()
    with frozen(model, x) as net:
        torch.testing.assert_close(net(x), model(x))


def test_is_not_misled_by_batch_norms_that_are_still_near_the_identity():
    torch.manual_seed(0)
    model, x = Peeking(True).eval(), images(2, side=8)
    with frozen(model, x) as net:  # the plan is made now, and kept
        torch.testing.assert_close(net(x), model(x))
    woken(model)
    with frozen(model, x) as net:
        torch.testing.assert_close(net(x), model(x))


def test_another_precision_is_frozen_anew():
    model, x = small_net(), images(2)
    with frozen(model, x, precision="bf16") as rough:
        with frozen(rough, x) as same:
            assert same is rough
        with frozen(rough, x, precision="float32") as net:
            assert net.precision == "float32"
            assert net.original is model
            torch.testing.assert_close(net(x), model(x))


def test_sees_new_weights_each_time_it_is_opened():
    model, x = woken(create_model("resnet18", num_classes=3)), images(2, side=32)
    for _ in range(2):
        with frozen(model, x) as net:
            torch.testing.assert_close(net(x), model(x), atol=1e-4, rtol=1e-4)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1.1)
    model.backbone.bn1 = nn.Identity()  # another architecture than the one that was looked at
    with frozen(model, x) as net:
        torch.testing.assert_close(net(x), model(x), atol=1e-4, rtol=1e-4)


def test_leaves_the_model_as_it_was():
    model = small_net(dropout=0.5).train()
    model[1].eval()
    before = {k: (v.clone(), v.stride(), v.dtype) for k, v in model.state_dict().items()}
    flags = [m.training for m in model.modules()]
    kinds = [type(m) for m in model.modules()]
    with pytest.raises(KeyError), frozen(model, images(2)) as net:
        assert [m.training for m in model.modules()] == flags  # a copy is run, not the model
        gradient(net, images(2), torch.arange(2))
        raise KeyError
    assert [m.training for m in model.modules()] == flags
    assert [type(m) for m in model.modules()] == kinds
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    for key, value in model.state_dict().items():
        saved, stride, dtype = before[key]
        assert torch.equal(value, saved)
        assert (value.stride(), value.dtype) == (stride, dtype)


def test_a_model_that_cannot_be_copied_is_run_as_it_is():
    model = small_net(dropout=0.5).train()
    model.lock = threading.Lock()
    x = images(2)
    with frozen(model, x) as net:
        torch.testing.assert_close(net(x), net(x))  # no dropout
        inside = net(x)
    assert model.training
    torch.testing.assert_close(inside, model.eval()(x))


def test_is_given_back_if_already_frozen_and_verdicts_ask_the_original():
    model, x = small_net(), images(2)
    with frozen(model, x) as net:
        assert net.original is model
        with frozen(net, x) as again:
            assert again is net
        with exactly(net) as inner:
            assert inner is model
        assert not list(net.parameters())
    assert isinstance(net, FrozenModel)


def test_bfloat16_gradients_agree_in_direction():
    torch.manual_seed(0)
    model = woken(create_model("resnet18", num_classes=4))
    x, y = images(4, side=32), torch.arange(4)
    with frozen(model, x, precision="bf16") as net:
        assert net(x).dtype == torch.float32
        rough = gradient(net, x, y).flatten(1)
    exact = gradient(model, x, y).flatten(1)
    assert (torch.cosine_similarity(rough, exact) > 0.97).all()


def test_perturbations_below_the_spacing_of_bfloat16_still_act():
    """At 0.7 the next bfloat16 pixel is 1/256 away; a change of 1/4000 would round to nothing."""
    conv = nn.Conv2d(3, 8, 3, padding=1)
    x = torch.full((1, 3, 16, 16), 0.7)
    change = 2.5e-4 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    assert torch.equal((x + change).bfloat16(), x.bfloat16())
    split = SplitConv2d.of(conv)
    assert split.in_channels == 6

    def response(weight, image):  # summed exactly, so that the input's rounding alone is seen
        return F.conv2d(image.double(), weight.double(), padding=1)

    def terms(image):
        high = image.bfloat16()
        return torch.cat([high, (image - high.float()).bfloat16()], 1)

    seen = response(split.weight, terms(x + change)) - response(split.weight, terms(x))
    true = response(conv.weight, change)
    assert (seen - true).abs().max() < 0.02 * true.abs().max()
    model = nn.Sequential(conv, nn.Flatten(), nn.Linear(8 * 256, 2))
    with frozen(model, x, precision="bf16") as net:
        assert isinstance(net.body[0], SplitConv2d)
        assert not torch.equal(net(x + change), net(x))


def test_verdicts_are_those_of_the_model_itself():
    model, x = small_net(seed=3), images(64)
    y = torch.arange(64) % 3
    with frozen(model, x, precision="bf16") as net:
        broken = verdict(net, x, y, batch_size=7)
    assert torch.equal(broken, margin(model(x), y) > 0)
