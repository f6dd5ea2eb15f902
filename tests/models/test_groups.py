"""Layer groups, over backbones of many kinds."""

from __future__ import annotations

import pytest
import torch
from tests.nets import small_net
from torch import nn

from diascope.models import create_model, layer_groups
from diascope.training.modes import train_mode

BACKBONES = [
    "alexnet-28",
    "resnet18",
    "resnet50",
    "resnetv2_50",
    "inception_resnet_v2",
    "inception_v3",
    "efficientnet_b0",
    "tf_efficientnet_lite0",
    "convnext_atto",
    "vit_tiny_patch16_224",
    "deit_tiny_distilled_patch16_224",
    "swin_tiny_patch4_window7_224",
    "mobilenetv3_small_050",
    "mobilenetv2_100",
    "densenet121",
    "regnety_002",
    "vgg11_bn",
    "hrnet_w18_small",
    "ghostnet_050",
    "xception41",
    "dpn68",
    "mixer_s16_224",
    "poolformer_s12",
    "levit_128",
    "pit_ti_224",
    "rdnet_tiny",
    "efficientformer_l1",
    "maxvit_pico_rw_256",
    "repvgg_a0",
]


def built(name: str, **options: object) -> nn.Module:
    with torch.device("meta"):  # shapes and names, no memory
        return create_model(name, num_classes=3, **options)


@pytest.mark.parametrize("name", BACKBONES)
def test_groups_divide_a_backbone_from_its_stem_to_its_head(name):
    model = built(name)
    groups = layer_groups(model)
    ids = [id(p) for group in groups for p in group]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters()}
    assert any(p is next(model.backbone.parameters()) for p in groups[0])
    found = model.backbone.get_classifier()
    layers = found if isinstance(found, tuple) else (found,)
    assert {id(p) for p in groups[-1]} == {id(p) for layer in layers for p in layer.parameters()}
    assert len(groups) >= 3
    order = [name for name, _ in model.named_parameters()]
    position = {id(p): order.index(n) for n, p in model.named_parameters()}
    means = [sum(position[id(p)] for p in group) / len(group) for group in groups]
    assert means[0] == min(means)


@pytest.mark.parametrize("name", BACKBONES)
def test_batch_norms_of_frozen_groups_sleep_and_no_others(name):
    model = built(name)
    *frozen, _last, head = layer_groups(model)
    for group in frozen:
        for parameter in group:
            parameter.requires_grad_(False)
    train_mode(model)
    open_ids = {id(p) for group in (_last, head) for p in group}
    for module in model.modules():
        if getattr(module, "running_mean", None) is None:
            continue
        own = [id(p) for p in module.parameters(recurse=False)]
        assert own, "a batch-norm without parameters belongs to no group"
        assert module.training == any(p in open_ids for p in own)


def test_resnet_18_has_the_five_groups_of_p1():
    model = built("resnet18")
    inside = {id(p): n for n, p in model.backbone.named_parameters()}
    stages = [{inside[id(p)].split(".")[0] for p in group} for group in layer_groups(model)]
    assert stages == [{"conv1", "bn1", "layer1"}, {"layer2"}, {"layer3"}, {"layer4"}, {"fc"}]


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "mixer_s16_224"])
@pytest.mark.parametrize("attention", ["soft", "plain"])
def test_attention_belongs_to_the_head(name, attention):
    model = create_model(name, 3, attention=attention, in_chans=1)
    groups = layer_groups(model)
    ids = [id(p) for group in groups for p in group]
    assert len(ids) == len(set(ids))
    assert set(ids) == {id(p) for p in model.parameters()}
    assert {id(p) for p in groups[-1]} == {id(p) for p in model.backbone.head.parameters()}
    assert len(groups) == len(layer_groups(built(name, in_chans=1)))


def test_a_net_without_stages_has_a_group_for_each_child():
    net = small_net()
    net.scale = nn.Parameter(torch.ones(1))
    net.forward = lambda x: x
    groups = layer_groups(net)
    assert [len(group) for group in groups] == [3, 2, 2, 2, 2]
    assert groups[0][0] is net.scale
    assert groups[-1][0] is net[-1].weight
