from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F
from tests.nets import Linear, images, small_net
from torch import nn

from diascope.explain import FullGrad, completeness
from diascope.explain.fullgrad import _spread
from diascope.models import create_model
from diascope.models.attention import SoftAttention
from diascope.models.normalise import Normalise

TARGET = torch.tensor([0, 1, 2, 1, 0])


def stirred(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in float64 with statistics and biases of its own, which begin near zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.3, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            if isinstance(module, nn.BatchNorm2d | nn.LayerNorm):
                module.weight.uniform_(0.5, 1.5, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.uniform_(-0.3, 0.3, generator=generator)
    return model.double().eval()


def drawn(make, seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return stirred(make())


def plain_net(classes: int = 3) -> nn.Sequential:
    """Piecewise linear in every kind of layer: strides, groups, pools, a batch-norm on its own."""
    return nn.Sequential(
        Normalise((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)),
        nn.BatchNorm2d(3),
        nn.Conv2d(3, 8, 5, stride=2, padding=2),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(8, 8, 3, padding=1, groups=4, padding_mode="reflect"),
        nn.LeakyReLU(0.1),
        nn.AvgPool2d(2),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Flatten(),
        nn.Linear(64, 6),
        nn.PReLU(),
        nn.Linear(6, classes),
    )


class Shifted(nn.Module):
    """An affine module of the user's own."""

    def forward(self, x):
        return 2 * x - 0.7


EXACT = {
    "small": lambda: small_net(),
    "plain": plain_net,
    "single logit": lambda: plain_net(1),
    "linear": lambda: Linear(torch.randn(3, 3, 16, 16), torch.randn(3)),
    "own affine": lambda: nn.Sequential(Shifted(), *small_net()),
    "alexnet-28": lambda: create_model("alexnet-28", 3, in_chans=3, width=0.1),
    "resnet18": lambda: create_model("resnet18", 3),
    "densenet121": lambda: create_model("densenet121", 3, block_config=(2, 2, 2, 2)),
    "resnetv2_50": lambda: create_model("resnetv2_50", 3, layers=(1, 1, 1, 1)),
    # not piecewise linear through zero: by implicit biases
    "ReLU6": lambda: create_model("tf_efficientnet_lite0", 3),
    "GELU, layer-norm": lambda: create_model("convnext_atto", 3, depths=(1, 1, 1, 1)),
    "gates": lambda: create_model("mobilenetv3_small_050", 3),
    "soft attention": lambda: create_model("resnet18", 3, attention="soft", layers=(1, 1, 1, 1)),
}
SIDES = {
    "alexnet-28": 28,
    "ReLU6": 32,
    "small": 16,
    "plain": 16,
    "single logit": 16,
    "linear": 16,
    "own affine": 16,
}


def sides(name: str) -> int:
    return SIDES.get(name, 64)


@pytest.mark.parametrize("name", EXACT)
def test_the_parts_sum_to_the_logit(name):
    model = drawn(EXACT[name])
    x, target = images(2, side=sides(name)).double(), torch.tensor([1, 0])
    parts = FullGrad().decompose(model, x, target)
    total = sum(part.flatten(1).sum(1) if part.ndim > 1 else part for part in parts.values())
    logits = model(x)
    if name == "single logit":
        logits = torch.cat([-logits / 2, logits / 2], 1)
    due = logits.gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(total, due.detach(), atol=0, rtol=1e-9)
    assert next(iter(parts)) == "input"
    assert len(parts) > 1
    found = completeness(FullGrad(), model, x, target)
    assert found.gap.max() < 1e-5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = FullGrad(psi="none")(model, x, target)
    torch.testing.assert_close(picture.sum((1, 2, 3)), due.detach(), atol=0, rtol=1e-8)


def test_every_part_equals_a_direct_computation():
    conv = nn.Conv2d(3, 5, 3, stride=2, padding=1).double()
    norm = stirred(nn.BatchNorm2d(5))
    second, head = nn.Conv2d(5, 4, 3, padding=1).double(), nn.Linear(4 * 4 * 4, 3).double()
    offset = Normalise((0.4, 0.5, 0.6), (0.2, 0.3, 0.25)).double()
    pool = nn.MaxPool2d(2)
    net = nn.Sequential(offset, conv, norm, nn.ReLU(), second, nn.ReLU(), pool, nn.Flatten(), head)
    x = images(5).double()
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()

    # every bias, written out at each place of each image, is an input of its own
    def broadcast(bias, *size):
        whole = bias.detach().view(-1, *[1] * len(size)).expand(5, len(bias), *size)
        return whole.clone().requires_grad_(True)

    b = [
        broadcast(-(offset.mean / offset.std).flatten(), 16, 16),
        broadcast((conv.bias - norm.running_mean) * scale + norm.bias, 8, 8),
        broadcast(second.bias, 8, 8),
        broadcast(head.bias),
    ]
    leaf = x.clone().requires_grad_(True)
    h = leaf / offset.std + b[0]
    h = F.conv2d(h, conv.weight * scale.view(-1, 1, 1, 1), stride=2, padding=1) + b[1]
    h = F.conv2d(h.relu(), second.weight, padding=1) + b[2]
    logits = pool(h.relu()).flatten(1) @ head.weight.T + b[3]
    torch.testing.assert_close(logits, net.eval()(x))
    score = logits.gather(1, TARGET[:, None]).sum()
    gradients = torch.autograd.grad(score, [leaf, *b])
    products = [g * v.detach() for g, v in zip(gradients, [x, *b], strict=True)]

    parts = FullGrad().decompose(net, x, TARGET)
    assert list(parts) == ["input", "0", "1", "4", "8"]
    expected = [products[0], *(p.sum(1) for p in products[1:])]
    for part, value in zip(parts.values(), expected, strict=True):
        torch.testing.assert_close(part, value, atol=1e-12, rtol=1e-9)

    # and the pictures made of them
    def scaled(t, dims):
        low, high = t.abs().amin(dims, keepdim=True), t.abs().amax(dims, keepdim=True)
        return (t.abs() - low) / torch.where(high > low, high - low, 1)

    for psi, dims in (("channel", (2, 3)), ("layer", (1, 2, 3))):
        picture = sum(
            F.interpolate(scaled(p, dims).sum(1, keepdim=True), (16, 16), mode="bilinear")
            for p in products[:-1]
        )
        ours = FullGrad(psi=psi)(net, x, TARGET)
        torch.testing.assert_close(ours, picture, atol=1e-9, rtol=1e-9)


def test_psi_none_puts_each_part_where_it_came_from():
    model = Linear(torch.randn(3, 3, 8, 8), torch.tensor([0.0, 6.4, 0.0])).double()
    x = images(2, side=8).double()
    picture = FullGrad(psi="none")(model, x, 1)
    expected = (x * model.weight[1]).sum(1, keepdim=True) + 6.4 / 64  # the bias has no place
    torch.testing.assert_close(picture, expected.detach())


@pytest.mark.parametrize("shape", [(16, 16), (15, 10), (5, 7), (2, 3)])
def test_spreading_keeps_the_sum(shape):
    maps = torch.rand(3, 4, 6, dtype=torch.float64)
    spread = _spread(maps, shape)
    assert spread.shape == (3, *shape)
    torch.testing.assert_close(spread.sum((1, 2)), maps.sum((1, 2)))
    assert torch.equal(_spread(maps, (4, 6)), maps)


class Product(nn.Module):
    """A model that multiplies activations outside of its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head((self.a(x) * self.b(x)).mean((2, 3)))


def test_what_the_parts_miss_is_measured_and_said():
    model, x = drawn(Product), images(4).double()
    with pytest.warns(UserWarning, match=r"parts miss \d+% of the score on average"):
        picture = FullGrad()(model, x, 1)
    assert picture.isfinite().all()
    found = completeness(FullGrad(), model, x, 1)
    torch.testing.assert_close(found.due, model(x)[:, 1].detach())
    assert found.gap.mean() > 0.05


def test_low_precision_alone_is_not_taken_for_a_gap():
    model, x = drawn(lambda: create_model("resnet18", 3)).float(), images(2, side=64)
    for precision in ("float32", "bf16"):
        gap = completeness(FullGrad(precision=precision), model, x, 1).gap.max()
        assert gap < 1e-3 if precision == "float32" else gap > 1e-3  # how far depends on the units
        FullGrad(precision=precision)(model, x, 1)  # a warning would be an error


def test_tokens_are_parts_by_place_and_those_without_a_place_apart():
    make = lambda: create_model("vit_tiny_patch16_224", 3, img_size=64, depth=2)
    model, x = drawn(make), images(2, side=64).double()
    nn.init.normal_(model.backbone.pos_embed, generator=torch.Generator().manual_seed(0))
    parts = FullGrad().decompose(model, x, 1)
    assert parts["backbone.patch_embed.proj"].shape == (2, 4, 4)
    assert parts["backbone.norm"].shape == (2, 4, 4)
    assert parts["backbone.norm (no place)"].shape == (2,)
    assert parts["backbone.head"].shape == (2,)
    with pytest.warns(UserWarning, match="not complete"):  # embeddings are added by the model
        whole = FullGrad(psi="none")(model, x, 1).sum((1, 2, 3))
    torch.testing.assert_close(whole, FullGrad().total(model, x, 1))
    with torch.no_grad():
        for name in ("pos_embed", "cls_token"):
            getattr(model.backbone, name).zero_()
    assert completeness(FullGrad(), model, x, 1).gap.max() < 1e-5


def test_soft_attention_alone_has_its_bias_found():
    net = nn.Sequential(SoftAttention(3, heads=2), nn.Flatten(), nn.Linear(3 * 64, 3))
    model, x = drawn(lambda: net), images(2, side=8).double()
    parts = FullGrad().decompose(model, x, 0)
    assert parts["0"].shape == (2, 8, 8)
    assert parts["0"].abs().max() > 0
    assert completeness(FullGrad(), model, x, 0).gap.max() < 1e-6


def test_one_forward_and_one_backward_an_image_and_nothing_left_behind():
    passes = {"forward": 0, "backward": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            passes["forward"] += len(x)
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            passes["backward"] += len(g)
            return g

    class Counting(nn.ReLU):
        def forward(self, x):
            return Counted.apply(super().forward(x))

    model, x = small_net(), images(5)
    model[2] = Counting()
    FullGrad(precision="float32")(model, x, TARGET)  # the look at the model
    passes.update(forward=0, backward=0)
    FullGrad(precision="float32")(model, x, TARGET)
    assert passes == {"forward": 5, "backward": 5}
    acts = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(inplace=True), nn.Flatten(), nn.Linear(784, 3))
    FullGrad()(acts, x, 1)
    assert acts[1].inplace
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in acts.modules())


def test_pictures_rank_pixels_as_grad_cams():
    peer = pytest.importorskip("pytorch_grad_cam")
    make = lambda: create_model("resnet18", 3, layers=(1, 1, 1, 1))
    model, x = drawn(make).float().backbone, images(2, side=64)
    targets = [peer.utils.model_targets.ClassifierOutputTarget(1)] * 2
    with peer.FullGrad(model=model, target_layers=[]) as method:
        expected = torch.from_numpy(method(input_tensor=x.clone(), targets=targets))
    ours = FullGrad(precision="float32")(model, x, 1)[:, 0]
    for a, b in zip(ours, expected, strict=True):
        ranks = torch.stack([t.flatten().argsort().argsort().double() for t in (a, b)])
        assert torch.corrcoef(ranks)[0, 1] > 0.9
