"""Soft attention: its formula, its cost, its controls, and the map it gives."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from tests.models.test_frozen import gradient, woken
from tests.nets import images

from diascope.errors import UserError
from diascope.models import attention_map, create_model, layer_groups, load_model, save_model
from diascope.models.attention import ATTENTION, AttentiveHead, EvenAttention, SoftAttention
from diascope.models.features import feature_map
from diascope.models.frozen import frozen

TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


def parameters(name: str, classes: int, attention: str | None) -> int:
    model = create_model(name, classes, attention=attention)
    return sum(p.numel() for p in model.parameters())


def test_soft_attention_is_its_formula():
    torch.manual_seed(0)
    block, t = SoftAttention(5, heads=4).double(), torch.randn(2, 5, 3, 6, dtype=torch.float64)
    weight, bias = block.conv.weight, block.conv.bias
    padded = F.pad(t, (1, 1, 1, 1))
    expected = torch.zeros(2, 1, 3, 6, dtype=torch.float64)
    for image in range(2):
        for head in range(4):
            score = torch.zeros(3, 6, dtype=torch.float64)
            for i in range(3):
                for j in range(6):
                    window = padded[image, :, i : i + 3, j : j + 3]
                    score[i, j] = ((weight[head] * window).sum() + bias[head]).clamp(min=0)
            expected[image, 0] += score.exp() / score.exp().sum()
    torch.testing.assert_close(block.map(t), expected)
    torch.testing.assert_close(block(t), 0.01 * expected * t)
    torch.testing.assert_close(block.map(t).sum((1, 2, 3)), torch.full((2,), 4.0).double())


def test_soft_attention_reads_every_channel():
    torch.manual_seed(0)
    block, t = SoftAttention(7), torch.rand(1, 7, 4, 4)
    for channel in range(7):
        changed = t.clone()
        changed[:, channel] += torch.rand(4, 4)
        assert not torch.equal(block.map(changed), block.map(t))


@pytest.mark.parametrize(("classes", "percent"), [(2, 1.27), (7, 1.31)])
def test_costs_a_resnet_50_what_p2_says(classes, percent):
    plain, soft = (parameters("resnet50", classes, a) for a in (None, "soft"))
    assert round(100 * (soft - plain) / plain, 2) == percent


def test_the_head_is_p2s_block():
    torch.manual_seed(0)
    head, t = AttentiveHead(6, 3, "soft", None).eval(), torch.randn(2, 6, 7, 7)
    u = head.attention(t)
    pooled = [F.max_pool2d(F.pad(m, (0, 1, 0, 1), value=-torch.inf), 2, 2) for m in (u, t)]
    assert pooled[0].shape[2:] == (4, 4)  # "same" padding
    expected = head.linear(torch.cat(pooled, 1).relu().mean((2, 3)))
    torch.testing.assert_close(head(t), expected)
    head.train()
    torch.manual_seed(1)
    first = head(t)
    assert not torch.equal(first, head(t))  # dropout


def test_the_control_has_the_same_head_and_attends_everywhere_alike():
    soft, control = (AttentiveHead(6, 3, kind, None) for kind in ("soft", "control"))
    assert soft.linear.weight.shape == control.linear.weight.shape
    assert [n for n, _ in control.attention.named_parameters()] == ["gamma"]
    flat, t = SoftAttention(6), torch.rand(2, 6, 5, 5)
    torch.nn.init.zeros_(flat.conv.weight)
    torch.testing.assert_close(EvenAttention()(t), flat(t))


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("side", [32, 64, 224])
def test_every_head_takes_maps_of_every_size(attention, side):
    model = create_model("resnet18", 3, attention=attention, **TINY).eval()
    assert model(images(2, side=side)).shape == (2, 3)  # 1x1, 2x2 and 7x7 maps


def test_flat_heads_keep_the_places_apart():
    model = create_model("resnet18", 3, attention="soft-flatten", **TINY)
    assert model.backbone.head.linear.in_features == 2 * 8 * 4 * 4
    model = create_model("resnet18", 3, attention="plain-flatten", **TINY)
    assert model.backbone.head.linear.in_features == 8 * 7 * 7
    head, t = model.backbone.head.eval(), torch.randn(2, 8, 7, 7)
    torch.testing.assert_close(head(t), head.linear(t.relu().flatten(1)))


def test_inception_resnet_v2_is_cut_after_its_second_last_block():
    model = create_model("inception_resnet_v2", 7, attention="soft").eval()
    body = model.backbone.features.body
    assert {n for n, _ in body.named_children()} >= {"repeat_2"}
    assert not [n for n, _ in body.named_parameters() if n.split(".")[0] in ("block8", "conv2d_7b")]
    x = images(1, side=299)
    seen = []
    handle = body.repeat_2.register_forward_hook(lambda m, i, o: seen.append(o))
    with torch.no_grad():
        t = model.backbone.features(model.normalise(x))
    handle.remove()
    assert t.shape == (1, 2080, 8, 8)
    assert torch.equal(seen[0], t)


BACKBONES = {
    "resnet18": (32, (1, 1)),
    "efficientnet_b0": (64, (2, 2)),
    "convnext_atto": (64, (2, 2)),
    "densenet121": (64, (2, 2)),
    "mobilenetv3_small_050": (64, (2, 2)),
    "vgg11_bn": (64, (2, 2)),
    "vit_tiny_patch16_224": (64, (4, 4)),
    "deit_tiny_distilled_patch16_224": (64, (4, 4)),
    "swin_tiny_patch4_window7_224": (64, (2, 2)),
    "mixer_s16_224": (224, (14, 14)),
    "alexnet-28": (28, (2, 2)),
}
SIZED = ("vit", "deit", "swin")


@pytest.mark.parametrize("name", BACKBONES)
def test_any_backbone_with_a_map_can_have_attention(name):
    side, size = BACKBONES[name]
    options = {"img_size": side} if name.startswith(SIZED) else {}
    if name.startswith("swin"):
        options["window_size"] = 2
    torch.manual_seed(0)
    model = create_model(name, 3, attention="soft", **options)
    x, y = images(2, side=side), torch.tensor([0, 2])
    heat = attention_map(model, x)
    assert heat.shape == (2, 1, *size)
    assert (heat >= 0).all()
    torch.testing.assert_close(heat.sum((1, 2, 3)), torch.full((2,), 16.0))
    F.cross_entropy(model.train()(x), y).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []  # DDP asks for this
    assert all(not m._forward_hooks for m in model.modules())


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_maps_of_tokens_lie_as_the_image_does(name):
    """The place that answers most to a change of the image is the place of that change."""
    options = {"img_size": 64} | ({"window_size": 2} if name.startswith("swin") else {})
    torch.manual_seed(0)
    net = create_model(name, 3, attention="soft", **options).eval().backbone.features
    x = images(1, side=64)
    changed = x.clone()
    changed[:, :, 8:16, 48:60] = 0  # the upper right
    moved = (net(changed) - net(x)).norm(dim=1)[0]
    row, column = divmod(int(moved.argmax()), moved.shape[1])
    assert row == 0
    assert column == moved.shape[1] - 1


def test_backbones_without_a_map_are_refused_in_one_line():
    for name, message in [
        ("hiera_tiny_224", "no map of the image"),
        ("crossvit_9_240", "not one map"),
        ("alexnet28", "did you mean"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            create_model(name, 3, attention="soft")
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no attention map"):
        attention_map(create_model("resnet18", 3, attention="control", **TINY), images(1, side=32))


class Reads(torch.nn.Module):
    """Takes a layer's weight without running the layer; has another that nothing takes."""

    def __init__(self):
        super().__init__()
        self.conv, self.idle = torch.nn.Conv2d(3, 4, 3), torch.nn.Conv2d(3, 4, 3)
        self.read = torch.nn.Conv2d(3, 4, 3)

    def forward_features(self, x):
        return F.conv2d(x, self.read.weight) + self.conv(x)


def test_layers_whose_weights_are_read_are_kept():
    net, x = Reads(), torch.rand(1, 3, 8, 8)
    before = net.forward_features(x)
    assert torch.equal(feature_map(net, "reads", x)(x), before)
    assert isinstance(net.read, torch.nn.Conv2d)
    assert isinstance(net.idle, torch.nn.Identity)


class Wrapper(torch.nn.Module):
    """What Fabric puts around a model, as far as it is looked at."""

    def __init__(self, inner):
        super().__init__()
        self._forward_module = inner


def test_the_map_is_that_of_the_model_in_eval_mode_behind_wrappers_too():
    torch.manual_seed(0)
    model = create_model("resnet18", 3, attention="soft", drop_rate=0.5, **TINY)
    x = images(3, side=64)
    model.train()
    heat = attention_map(Wrapper(model), x)
    assert model.training
    model.eval()
    t = model.backbone.features(model.normalise(x))
    torch.testing.assert_close(heat, model.backbone.head.attention.map(t))
    with frozen(model, x, precision="bf16") as net:
        torch.testing.assert_close(attention_map(net, x), heat)


@pytest.mark.parametrize("attention", ATTENTION)
def test_comes_back_from_disk(attention, tmp_path):
    model = create_model("resnet18", 3, attention=attention, in_chans=1, **TINY).eval()
    save_model(model, tmp_path / "model.safetensors")
    loaded, x = load_model(tmp_path), images(2, side=64, channels=1)
    assert loaded.spec.attention == attention
    assert torch.equal(loaded(x), model(x))


@pytest.mark.parametrize(
    ("name", "attention"),
    [
        ("resnet18", "soft"),
        ("resnet18", "control-flatten"),
        ("efficientnet_b0", "soft"),
        ("alexnet-28", "soft"),
        ("swin", "soft"),
    ],
)
def test_frozen_gives_the_same_logits_and_gradients(name, attention):
    options = {"img_size": 64, "window_size": 2} if name == "swin" else {}
    name = {"swin": "swin_tiny_patch4_window7_224"}.get(name, name)
    torch.manual_seed(0)
    model = woken(create_model(name, 3, attention=attention, **options))
    head = model.backbone.head
    head.attention.gamma.data.fill_(1.0)
    model.double()
    x, y = images(3, side=64).double(), torch.arange(3)
    with frozen(model, x) as net:
        torch.testing.assert_close(net(x), model(x), atol=1e-9, rtol=1e-7)
        torch.testing.assert_close(gradient(net, x, y), gradient(model, x, y), atol=1e-9, rtol=1e-6)
        if name == "resnet18":
            assert not [m for m in net.body.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    model.float()
    with frozen(model, x.float(), precision="bf16") as net:
        rough = gradient(net, x.float(), y).flatten(1)
    true = gradient(model, x.float(), y).flatten(1)
    assert (torch.cosine_similarity(rough, true) > 0.95).all()


def test_attention_is_trained_with_the_head():
    model = create_model("resnet18", 3, attention="soft", **TINY)
    last = {id(p) for p in layer_groups(model)[-1]}
    assert id(model.backbone.head.attention.gamma) in last
    assert id(model.backbone.head.attention.conv.weight) in last
    assert id(model.backbone.head.linear.weight) in last
