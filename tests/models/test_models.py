from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from diascope.errors import UserError
from diascope.models import (
    create_model,
    evaluating,
    load_model,
    read_card,
    save_model,
)

TINY = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}


@pytest.mark.parametrize("channels", [1, 3])
def test_normalisation_is_inside_and_makes_pixel_space(channels):
    model = create_model("resnet18", num_classes=3, in_chans=channels, **TINY).eval()
    x = torch.rand(2, channels, 32, 32)
    assert model(x).shape == (2, 3)
    mean = model.normalise.mean.expand(1, channels, 32, 32)
    assert model.normalise(mean).abs().max() == 0
    torch.testing.assert_close(model(x), model.backbone(model.normalise(x)))


def test_wrong_names_and_options_are_refused_in_one_line():
    for call, message in [
        (lambda: create_model("resnet81", 3), "did you mean 'resnet"),
        (lambda: create_model("resnet18", 0), "at least 1"),
        (lambda: create_model("resnet18", 3, layrs=[1]), "layrs"),
        (lambda: create_model("alexnet28", 3), "did you mean 'alexnet-28'"),
        (lambda: create_model("alexnet-28", 3, widht=2), "widht"),
        (lambda: create_model("alexnet-28", 3, pretrained=True), "no pretrained"),
        (lambda: create_model("resnet18", 3, attention="sotf"), "did you mean 'soft'"),
        (lambda: create_model("resnet18", 3, pretrained=True, weights="x"), "keep one"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            call()
        assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_had_are_a_users_error(monkeypatch):
    import timm

    def offline(*args, **kwargs):
        raise OSError("no network\nlong story")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(UserError, match=r"pretrained weights cannot be had \(no network\)"):
        create_model("resnet18", 3, pretrained=True)


def test_a_classifier_comes_back_from_disk_bit_for_bit(tmp_path):
    model = create_model("resnet18", num_classes=2, in_chans=1, drop_rate=0.25, **TINY)
    with torch.no_grad():
        for buffer in model.buffers():
            buffer.add_(torch.rand_like(buffer.float()).to(buffer.dtype))
    save_model(model, tmp_path / "model.safetensors", classes=["a", "b"], size=32)
    for path in (tmp_path, tmp_path / "model.safetensors", str(tmp_path)):
        loaded = load_model(path)
        x = torch.rand(3, 1, 32, 32)
        assert torch.equal(loaded(x), model.eval()(x))
        assert loaded.card["classes"] == ["a", "b"]
        assert loaded.spec == model.spec or loaded.spec.to_dict() == model.spec.to_dict()
        assert not loaded.training
    assert read_card(tmp_path)["model"]["options"]["drop_rate"] == 0.25


def test_files_that_are_no_models_are_refused_in_one_line(tmp_path):
    good = tmp_path / "good.safetensors"
    save_model(create_model("resnet18", 2, **TINY), good)
    (tmp_path / "cut.safetensors").write_bytes(good.read_bytes()[:5000])
    (tmp_path / "text.safetensors").write_text("hello")
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04cos\nsystem\n")
    save_file({"a": torch.zeros(1)}, tmp_path / "bare.safetensors")
    header = {"format": "diascope-classifier-0"}
    save_file({"a": torch.zeros(1)}, tmp_path / "old.safetensors", {"diascope": json.dumps(header)})
    header = {**read_card(good), "model": {**read_card(good)["model"], "num_classes": 5}}
    from safetensors import safe_open

    with safe_open(good, "pt") as content:
        tensors = {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118
    save_file(tensors, tmp_path / "misfit.safetensors", {"diascope": json.dumps(header)})
    (tmp_path / "empty").mkdir()
    for name, message in [
        ("cut.safetensors", "not a readable"),
        ("text.safetensors", "not a readable"),
        ("pickle.safetensors", "not a readable"),
        ("bare.safetensors", "no Diascope header"),
        ("old.safetensors", "format"),
        ("misfit.safetensors", "do not fit"),
        ("none.safetensors", "no such file"),
        ("empty", "finished run"),
    ]:
        with pytest.raises(UserError, match=message) as caught:
            load_model(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_evaluating_gives_each_module_its_own_flag_back():
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3)))
    model.train()
    model[1][1].eval()
    with pytest.raises(RuntimeError), evaluating(model):
        assert not any(m.training for m in model.modules())
        raise RuntimeError
    assert [m.training for m in model.modules()] == [True, True, True, True, False]
