"""Weights to start from: what fits, what is adapted, what is refused."""

from __future__ import annotations

import re

import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.models.test_frozen import woken
from tests.nets import images

from diascope.errors import UserError
from diascope.models import create_model, load_model, save_model
from diascope.models.weights import start_from

TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


@pytest.fixture
def state():
    """The weights of a timm backbone with ten classes."""
    torch.manual_seed(3)
    return woken(timm.create_model("resnet18", num_classes=10, **TINY)).state_dict()


def same(model, state, except_for=()):
    found = model.backbone.state_dict()
    assert set(found) == set(state)
    return all(torch.equal(found[k], state[k]) for k in state if k not in except_for)


@pytest.mark.parametrize("kind", ["safetensors", "pth", "bin", "nested", "prefixed", "text"])
def test_weights_are_read_from_every_kind_of_file(kind, state, tmp_path):
    file = tmp_path / f"w.{kind if kind in ('safetensors', 'bin') else 'pth'}"
    if kind == "safetensors":
        save_file(state, file)
    elif kind == "nested":
        torch.save({"model": {f"module.{k}": v for k, v in state.items()}, "epoch": 3}, file)
    elif kind == "prefixed":
        torch.save({f"module.{k}": v for k, v in state.items()}, file)
    else:
        torch.save(state, file)
    model = create_model("resnet18", 10, weights=str(file) if kind == "text" else file, **TINY)
    assert same(model, state)
    assert model.fresh == ()
    assert "weights" not in model.spec.to_dict()["options"]


def test_a_head_of_other_classes_stays_fresh_and_is_named(state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    torch.manual_seed(7)
    drawn = create_model("resnet18", 3, **TINY).backbone.fc.weight
    torch.manual_seed(7)
    model = create_model("resnet18", 3, weights=tmp_path / "w.pth", **TINY)
    assert model.fresh == ("backbone.fc.weight", "backbone.fc.bias")
    assert torch.equal(model.backbone.fc.weight, drawn)
    inner = {k: v for k, v in model.backbone.state_dict().items() if not k.startswith("fc")}
    assert all(torch.equal(v, state[k]) for k, v in inner.items())
    save_model(model, tmp_path / "m" / "model.safetensors")
    (tmp_path / "w.pth").unlink()  # the model is whole without it
    assert load_model(tmp_path / "m").fresh == ()


def test_half_a_head_is_no_head(state, tmp_path):
    del state["fc.bias"]
    torch.save(state, tmp_path / "w.pth")
    model = create_model("resnet18", 10, weights=tmp_path / "w.pth", **TINY)
    assert model.fresh == ("backbone.fc.weight", "backbone.fc.bias")
    assert not torch.equal(model.backbone.fc.weight, state["fc.weight"])


def test_the_first_convolution_is_summed_for_grey_images(state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    model = create_model("resnet18", 10, in_chans=1, weights=tmp_path / "w.pth", **TINY)
    torch.testing.assert_close(model.backbone.conv1.weight, state["conv1.weight"].sum(1, True))
    assert same(
        create_model("resnet18", 10, weights=tmp_path / "w.pth", **TINY), state
    )  # what was read is not changed
    torch.save(model.backbone.state_dict(), tmp_path / "grey.pth")
    with pytest.raises(UserError, match=re.escape("'conv1.weight' is (64, 1, 7, 7), not (64, 3,")):
        create_model("resnet18", 10, weights=tmp_path / "grey.pth", **TINY)


def test_old_files_without_counters_are_read(state, tmp_path):
    torch.save({k: v for k, v in state.items() if "tracked" not in k}, tmp_path / "w.pth")
    model = create_model("resnet18", 10, weights=tmp_path / "w.pth", **TINY)
    assert torch.equal(model.backbone.bn1.running_mean, state["bn1.running_mean"])


def test_what_does_not_fit_is_refused_in_one_line(state, tmp_path):
    def refused(message, changed=None, **options):
        torch.save(state if changed is None else changed, tmp_path / "w.pth")
        with pytest.raises(UserError, match=message) as caught:
            create_model(
                **{"name": "resnet18", "num_classes": 10, **TINY, **options},
                weights=tmp_path / "w.pth",
            )
        assert "\n" not in str(caught.value)
        assert "w.pth" in str(caught.value)

    lost = {k: v for k, v in state.items() if "layer3" not in k}
    refused(r"'layer3.0.conv1.weight' is missing \(and 14 more\)", lost)
    refused("'extra' is not among its tensors", {**state, "extra": torch.zeros(1)})
    refused(r"is \(8, 8, 3, 3\), not \(9, 8, 3, 3\)", channels=[8, 9, 8, 8])
    refused("do not fit densenet121", name="densenet121", layers=None, channels=None)
    refused("no dictionary of weights", [1])
    with pytest.raises(UserError, match="no such weights file"):
        create_model("resnet18", 10, weights=tmp_path / "none.pth")


def test_vits_positions_are_resampled_as_timm_does(tmp_path):
    torch.manual_seed(0)
    vit = timm.create_model("vit_tiny_patch16_224", img_size=64, num_classes=2, depth=1)
    torch.save(vit.state_dict(), tmp_path / "w.pth")
    model = create_model(
        "vit_tiny_patch16_224", 2, weights=tmp_path / "w.pth", img_size=96, depth=1
    )
    assert model.backbone.pos_embed.shape == (1, 1 + 36, 192)
    assert torch.equal(model.backbone.blocks[0].attn.qkv.weight, vit.blocks[0].attn.qkv.weight)


@pytest.mark.parametrize("folder", [True, False])
def test_a_trained_model_is_gone_on_from(folder, tmp_path):
    torch.manual_seed(0)
    old = woken(create_model("alexnet-28", 4, in_chans=1, width=0.1))
    old.spec = type(old.spec)(**{**old.spec.__dict__, "mean": (0.2,), "std": (0.3,)})
    save_model(old, tmp_path / "model.safetensors")
    path = tmp_path if folder else tmp_path / "model.safetensors"
    new = create_model("alexnet-28", 4, in_chans=1, width=0.1, drop_rate=0.1, weights=path)
    assert same(new, old.backbone.state_dict())
    assert (new.spec.mean, new.spec.std) == ((0.2,), (0.3,))
    assert float(new.normalise.mean) == pytest.approx(0.2)
    new = create_model("alexnet-28", 2, in_chans=1, width=0.1, weights=path)
    assert new.fresh == ("backbone.fc8.weight", "backbone.fc8.bias")
    for message, call in [
        ("name alexnet-28, not resnet18", lambda: create_model("resnet18", 4, weights=path)),
        ("options", lambda: create_model("alexnet-28", 4, in_chans=1, weights=path)),
    ]:
        with pytest.raises(UserError, match=message):
            call()


def test_attention_starts_from_weights_with_and_without_it(state, tmp_path):
    torch.save(state, tmp_path / "w.pth")
    torch.manual_seed(0)
    soft = create_model("resnet18", 10, attention="soft", weights=tmp_path / "w.pth", **TINY)
    body = soft.backbone.features.body.state_dict()
    assert body
    assert all(torch.equal(v, state[k]) for k, v in body.items())
    assert set(soft.fresh) == {
        f"backbone.head.{k}"
        for k in (
            "attention.gamma",
            "attention.conv.weight",
            "attention.conv.bias",
            "linear.weight",
            "linear.bias",
        )
    }
    soft.backbone.head.attention.gamma.data.fill_(0.3)
    save_model(soft, tmp_path / "soft.safetensors")
    file = tmp_path / "soft.safetensors"
    again = create_model("resnet18", 10, attention="soft", weights=file, **TINY)
    assert same(again, soft.backbone.state_dict())
    assert again.fresh == ()
    fewer = create_model("resnet18", 2, attention="soft", in_chans=1, weights=file, **TINY)
    assert fewer.fresh == ("backbone.head.linear.weight", "backbone.head.linear.bias")
    assert fewer.backbone.head.attention.gamma.item() == pytest.approx(0.3)
    with pytest.raises(UserError, match="attention soft, not null"):
        create_model("resnet18", 10, weights=file, **TINY)
    save_model(create_model("resnet18", 10, **TINY), tmp_path / "plain.safetensors")
    new = create_model(
        "resnet18", 10, attention="control", weights=tmp_path / "plain.safetensors", **TINY
    )
    assert all(name.startswith("backbone.head.") for name in new.fresh)


def efficientnet_names(state):
    """The names of `efficientnet_pytorch`, for the state of a timm EfficientNet, in its order."""
    top = {"conv_stem": "_conv_stem", "bn1": "_bn0", "conv_head": "_conv_head", "bn2": "_bn1"}
    top["classifier"] = "_fc"
    blocks = list(dict.fromkeys(tuple(k.split(".")[1:3]) for k in state if k.startswith("blocks")))
    out = {}
    for key, value in state.items():
        parts = key.split(".")
        if parts[0] != "blocks":
            out[".".join([top[parts[0]], *parts[1:]])] = value
            continue
        place, layer = (parts[1], parts[2]), ".".join(parts[3:-1])
        inverted = f"blocks.{place[0]}.{place[1]}.conv_pwl.weight" in state
        old = {"conv_dw": "_depthwise_conv", "se.conv_reduce": "_se_reduce"}
        old["se.conv_expand"] = "_se_expand"
        if inverted:
            old |= {"conv_pw": "_expand_conv", "conv_pwl": "_project_conv"}
            old |= {"bn1": "_bn0", "bn2": "_bn1", "bn3": "_bn2"}
        else:
            old |= {"conv_pw": "_project_conv", "bn1": "_bn1", "bn2": "_bn2"}
        out[f"_blocks.{blocks.index(place)}.{old[layer]}.{parts[-1]}"] = value
    return out


@pytest.mark.parametrize("name", ["tf_efficientnet_lite0", "tf_efficientnet_b0"])
def test_efficientnets_of_the_first_torch_port_are_read(name, tmp_path):
    torch.manual_seed(0)
    net = woken(timm.create_model(name, num_classes=10))
    torch.save(efficientnet_names(net.state_dict()), tmp_path / "w.pth")
    model = create_model(name, 10, weights=tmp_path / "w.pth").eval()
    x = images(2, side=64)
    torch.testing.assert_close(model(x), net(model.normalise(x)))
    assert model.fresh == ()
    with pytest.raises(UserError, match="do not fit resnet18"):
        create_model("resnet18", 10, weights=tmp_path / "w.pth")


def test_a_backbone_without_a_known_head_takes_weights_whole():
    net = torch.nn.Sequential(torch.nn.Linear(2, 3))
    from diascope.models.weights import Weights

    given = {"0.weight": torch.ones(3, 2), "0.bias": torch.ones(3)}
    assert start_from(net, Weights("f", given), "mine", 3) == ()
    assert net[0].weight.sum() == 6
