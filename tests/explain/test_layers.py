from __future__ import annotations

import pytest
import timm
import torch
import torchvision
from tests.nets import images, small_net
from torch import nn

from diascope.errors import UserError
from diascope.explain.layers import Places, branching, find_layer, places_of
from diascope.models import create_model
from diascope.models.frozen import frozen

SMALL_VIT = {"img_size": 64, "depth": 3}

# name, options, side, the layer that is found, its grid
BACKBONES = [
    ("resnet18", {}, 96, "layer4", (3, 3)),
    ("resnetv2_50", {"layers": (1, 1, 1, 1)}, 96, "norm", (3, 3)),
    ("densenet121", {"block_config": (2, 2, 2, 2)}, 96, "features", (3, 3)),
    (
        "vgg11_bn",
        {"mlp_ratio": 0.02},
        64,
        "features.27",
        (4, 4),
    ),  # the ReLU before the last pooling
    ("efficientnet_b0", {}, 64, "bn2", (2, 2)),  # behind a convolution after the last stage
    ("tf_efficientnet_lite0", {}, 64, "bn2", (2, 2)),
    ("mobilenetv3_small_100", {}, 64, "blocks", (2, 2)),  # the convolution in the head sees 1x1
    ("convnext_atto", {}, 64, "norm_pre", (2, 2)),
    ("inception_resnet_v2", {}, 139, "conv2d_7b", (3, 3)),
    ("regnetx_002", {}, 64, "final_conv", (2, 2)),
    ("xception41", {}, 65, "act", (3, 3)),
    ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2}, 64, "norm", (2, 2)),
    ("vit_tiny_patch16_224", SMALL_VIT, 64, "blocks.1", (4, 4)),  # the last places that are read
    ("vit_tiny_patch16_224", {**SMALL_VIT, "global_pool": "avg"}, 64, "norm", (4, 4)),
    ("deit3_small_patch16_224", SMALL_VIT, 64, "blocks.1", (4, 4)),
    ("mixer_s32_224", {"img_size": 64}, 64, "norm", (2, 2)),
]


@pytest.mark.parametrize(("name", "options", "side", "layer", "grid"), BACKBONES)
def test_the_last_map_of_any_backbone_is_found(name, options, side, layer, grid):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model(name, 3, **options).eval()
        if name.startswith("mixer"):
            nn.init.normal_(model.backbone.head.weight)  # timm begins with zero, which hides all
    x = images(2, side=side)
    for precision in ("float32", "bf16") if side <= 64 else ("float32",):
        with frozen(model, x, precision=precision) as net:
            found = find_layer(net, x)
            assert found.name == f"backbone.{layer}"
            assert (found.places.height, found.places.width) == grid
            with branching(net, found) as outputs, torch.no_grad():
                net(x)
            assert found.places.as_map(outputs[0]).shape[0] == 2
            assert found.places.as_map(outputs[0]).shape[2:] == grid


@pytest.mark.parametrize(
    ("model", "side", "layer", "grid"),
    [
        (lambda: torchvision.models.squeezenet1_1(num_classes=3), 64, "classifier.2", (3, 3)),
        (lambda: torchvision.models.alexnet(num_classes=3), 64, "features.11", (3, 3)),
        (lambda: timm.create_model("resnet18", num_classes=3), 64, "layer4", (2, 2)),
        (small_net, 16, "5", (8, 8)),  # the adaptive pooling to 2x2 has learnt nothing
        (lambda: create_model("alexnet-28", 3, in_chans=3), 28, "backbone.relu", (6, 6)),
        (lambda: create_model("resnet18", 3, attention="soft"), 64, "backbone.features", (2, 2)),
        (lambda: create_model("resnet18", 3, attention="control"), 64, "backbone.features", (2, 2)),
    ],
)
def test_the_last_map_of_other_models_is_found(model, side, layer, grid):
    x = images(1, side=side)
    with frozen(model().eval(), x, precision="float32") as net:
        found = find_layer(net, x)
    assert found.name == layer
    assert (found.places.height, found.places.width) == grid


def test_of_a_module_that_runs_often_the_right_call_is_taken():
    model, x = create_model("alexnet-28", 3, in_chans=3).eval(), images(2, side=28)
    with frozen(model, x, precision="float32") as net:
        found = find_layer(net, x)
        assert found.call == 4  # conv1 to conv5 share one ReLU with the hidden layers
        assert find_layer(net, x, "relu") == found  # its later calls give no map
        with branching(net, found) as outputs:
            net(x)
    expected = model.normalise(x)
    b = model.backbone
    for conv, pooled in ((b.conv1, True), (b.conv2, True), (b.conv3, False), (b.conv4, False)):
        expected = conv(expected).relu()
        expected = b.pool(expected) if pooled else expected
    expected = b.conv5(expected).relu()
    torch.testing.assert_close(outputs[0], expected.detach(), atol=1e-5, rtol=1e-4)


def test_what_a_model_pools_is_not_taken_for_a_map_and_a_model_without_one_is_refused():
    x = images(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(768, 3)).eval()
    with frozen(net, x) as model, pytest.raises(UserError, match="no map of at least 2x2"):
        find_layer(model, x)
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 3)).eval()
    with frozen(pooled, x) as model, pytest.raises(UserError, match="no map of at least 2x2"):
        find_layer(model, x)


class Branches(nn.Module):
    """Two branches from one map: neither alone has all that reaches the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.left, self.right = (nn.Conv2d(3, 3, 3, padding=1) for _ in range(3))
        self.head = nn.Linear(3, 3)

    def forward(self, x):
        t = self.stem(x)
        return self.head(self.left(t).mean((2, 3)) + self.right(t).mean((2, 3)))


def test_a_map_that_others_go_round_is_not_taken():
    x = images(1)
    with frozen(Branches().eval(), x) as net:
        assert find_layer(net, x).name == "stem"
        assert find_layer(net, x, "left").name == "left"


def test_a_named_layer_is_taken_and_a_wrong_name_is_refused_with_the_nearest():
    model, x = create_model("resnet18", 3).eval(), images(1, side=64)
    with frozen(model, x) as net:
        assert find_layer(net, x, "layer2.1.conv1").name == "backbone.layer2.1.conv1"
        assert find_layer(net, x, "backbone.layer3").places == Places("NCHW", 4, 4)
        with pytest.raises(UserError, match=r"'layer5'.*did you mean 'layer\d'"):
            find_layer(net, x, "layer5")
        with pytest.raises(UserError, match="'fc'.*no map"):
            find_layer(net, x, "fc")


def test_layouts_are_told_from_the_images_shape():
    wide, square = torch.zeros(1, 3, 64, 96), torch.zeros(1, 3, 224, 224)
    other = nn.Identity()
    assert places_of(other, torch.zeros(1, 7, 4, 6), wide) == Places("NCHW", 4, 6)
    assert places_of(other, torch.zeros(1, 4, 6, 7), wide) == Places("NHWC", 4, 6)
    assert places_of(other, torch.zeros(1, 7, 7, 768), square) == Places("NHWC", 7, 7)
    assert places_of(other, torch.zeros(1, 768, 7, 7), square) == Places("NCHW", 7, 7)
    assert places_of(nn.Conv2d(1, 1, 1), torch.zeros(1, 8, 2, 30), square) == Places("NCHW", 2, 30)
    assert places_of(other, torch.zeros(1, 24, 5), wide) == Places("NLC", 4, 6)
    assert places_of(other, torch.zeros(1, 197, 5), square) == Places("NLC", 14, 14)
    assert places_of(other, torch.zeros(1, 5, 1, 1), square) is None
    assert places_of(other, torch.zeros(1, 12, 197, 64), square) is None  # of attention's heads
    assert places_of(other, torch.zeros(1, 5), square) is None


def test_tokens_come_row_by_row_after_those_without_a_place():
    tokens = torch.arange(7.0).view(1, 7, 1)
    places = Places("NLC", 2, 3)
    assert places.as_map(tokens).tolist() == [[[[1, 2, 3], [4, 5, 6]]]]
    assert places.placeless(tokens).tolist() == [[[0]]]
    assert places.placeless(tokens[:, 1:]) is None
