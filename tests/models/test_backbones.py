"""Every backbone of our own: what is asked of all, and AlexNet's own shapes."""

from __future__ import annotations

import pytest
import torch
from tests.nets import images

from diascope.models import create_model, layer_groups, load_model, save_model
from diascope.models.backbones import Backbone, backbones

SMALL = {"alexnet-28": {"width": 0.1}}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", list(backbones))
def test_contract(name, channels, tmp_path):
    torch.manual_seed(0)
    model = create_model(name, 5, in_chans=channels, **SMALL[name])
    backbone = model.backbone
    assert isinstance(backbone, Backbone)
    cfg = backbone.pretrained_cfg
    x = images(2, side=cfg["input_size"][-1], channels=channels)
    assert model(x).shape == (2, 5)
    assert backbone.forward_features(model.normalise(x)).ndim == 4
    assert backbone.get_submodule(cfg["first_conv"]).in_channels == channels
    assert backbone.get_submodule(cfg["classifier"]) is backbone.get_classifier()
    assert len(layer_groups(model)) >= 3
    save_model(model, tmp_path / "model.safetensors")
    loaded = load_model(tmp_path)
    assert loaded.spec.options == SMALL[name]
    assert torch.equal(loaded(x), model.eval()(x))


def test_alexnet_has_the_shapes_its_docstring_says():
    model = create_model("alexnet-28", 10, in_chans=1)
    net, seen = model.backbone, {}
    handles = [
        module.register_forward_hook(lambda m, i, o, n=n: seen.update({n: tuple(o.shape[1:])}))
        for n, module in net.named_modules()
        if n.startswith(("conv", "fc"))
    ]
    x = images(2, side=28, channels=1)
    with torch.no_grad():
        model.eval()(x)
        features = net.forward_features(model.normalise(x))
        assert torch.equal(net.average(features), features)  # nothing at 28x28
    for handle in handles:
        handle.remove()
    assert seen == {
        "conv1": (64, 28, 28),
        "conv2": (192, 13, 13),
        "conv3": (384, 6, 6),
        "conv4": (256, 6, 6),
        "conv5": (256, 6, 6),
        "fc6": (4096,),
        "fc7": (4096,),
        "fc8": (10,),
    }
    assert (model.spec.mean, model.spec.std) == ((0.5,), (0.5,))


def test_alexnet_takes_larger_images_and_colour_and_refuses_smaller_ones():
    model = create_model("alexnet-28", 3, width=0.1).eval()
    assert model(images(2, side=64)).shape == (2, 3)
    assert model.spec.mean == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="28x28 up"):
        model(images(2, side=27))


def test_alexnets_groups_are_its_layers():
    model = create_model("alexnet-28", 3, width=0.1)
    inside = {id(p): n for n, p in model.backbone.named_parameters()}
    layers = [sorted({inside[id(p)].split(".")[0] for p in g}) for g in layer_groups(model)]
    assert layers == [
        ["conv1", "conv2"],
        ["conv3"],
        ["conv4"],
        ["conv5"],
        ["fc6"],
        ["fc7"],
        ["fc8"],
    ]


def test_alexnet_drops_out_in_training_alone():
    model, x = create_model("alexnet-28", 3, width=0.1), images(2, side=28)
    assert not torch.equal(model.train()(x), model(x))
    assert torch.equal(model.eval()(x), model(x))
