"""Models from elsewhere: timm names with weights, and factories."""

from __future__ import annotations

import pickle

import pytest
import timm
import torch
from safetensors.torch import save_file
from tests.nets import images

from diascope.audit import open_subjects
from diascope.errors import UserError
from diascope.models.foreign import open_model

FACTORIES = """
import torch
from torch import nn

class Mine(nn.Module):
    def forward(self, x):
        return torch.stack([x.mean((1, 2, 3)), x.amax((1, 2, 3))], 1)

def build():
    return Mine()

def wrong():
    return "no module"

def picture():
    return nn.Identity()

def failing():
    raise OSError("no weights here")

def asks(depth):
    return Mine()

def asks_twice(depth, width):
    return Mine()

ready = Mine()
"""


@pytest.fixture
def backbone():
    torch.manual_seed(3)
    return timm.create_model("resnet18", num_classes=3).eval()


@pytest.mark.parametrize("kind", ["safetensors", "pth", "wrapped", "prefixed"])
def test_timm_weights_are_read_with_timms_normalisation_in_front(kind, backbone, tmp_path):
    file, state = tmp_path / "mine.pth", backbone.state_dict()
    if kind == "safetensors":
        file = tmp_path / "mine.safetensors"
        save_file(state, file)
    elif kind == "pth":
        torch.save(state, file)
    elif kind == "wrapped":
        torch.save({"state_dict": state, "epoch": 3}, file)
    else:
        torch.save({f"module.{k}": v for k, v in state.items()}, file)
    model, card = open_model(f"resnet18:{file}")
    x = images(2, side=64)
    mean = torch.tensor(backbone.pretrained_cfg["mean"]).view(1, 3, 1, 1)
    std = torch.tensor(backbone.pretrained_cfg["std"]).view(1, 3, 1, 1)
    torch.testing.assert_close(model(x), backbone((x - mean) / std))
    assert card["size"] == 224
    assert not model.training


def test_grey_scale_weights_make_a_grey_scale_model(tmp_path):
    torch.save(
        timm.create_model("resnet18", num_classes=1, in_chans=1).state_dict(), tmp_path / "g.pt"
    )
    (subject,) = open_subjects([f"resnet18:{tmp_path / 'g.pt'}"], classes=["no", "yes"], size=32)
    assert subject.card["preprocess"]["channels"] == 1
    assert subject.model(images(2, side=32, channels=1)).shape == (2, 1)
    assert (subject.name, subject.architecture) == ("g", "resnet18")


def test_factories_are_imported_from_where_one_stands(tmp_path, monkeypatch):
    (tmp_path / "my_models.py").write_text(FACTORIES)
    monkeypatch.chdir(tmp_path)
    (subject,) = open_subjects(["my_models:build"], classes=["dark", "bright"], size=16)
    assert subject.card["size"] == 16
    assert subject.card["classes"] == ["dark", "bright"]
    assert (subject.name, subject.architecture) == ("my_models.build", "Mine")
    with pytest.raises(UserError, match="2 outputs, and 3 classes"):
        open_subjects(["my_models:build"], classes=["a", "b", "c"], size=16)
    (guessed,) = open_subjects(["my_models:build"], classes=["a", "b"])
    assert guessed.card["size"] == 224
    assert "guessed-size" in guessed.interface.codes
    with pytest.raises(UserError, match="not logits"):
        open_subjects(["my_models:picture"], classes=["a", "b"], size=16)
    with pytest.raises(UserError, match="returned a str"):
        open_model("my_models:wrong")
    with pytest.raises(UserError, match="has no 'bild'"):
        open_model("my_models:bild")
    assert type(open_model("my_models:ready")[0]).__name__ == "Mine"
    with pytest.raises(UserError, match="OSError: no weights here"):
        open_model("my_models:failing")
    with pytest.raises(UserError, match="asks: returns an answer of type Mine"):
        open_subjects(["my_models:asks"], classes=["a", "b"], size=16)
    with pytest.raises(UserError, match="missing 2 required"):
        open_model("my_models:asks_twice")
    for address in ("no_such_module:build", ":build", "./x/run:1", "my_models:"):
        with pytest.raises(UserError, match="neither a file, nor a timm name"):
            open_model(address)
    with pytest.raises(UserError, match="called twice"):
        open_subjects(["my_models:build"], classes=["a", "a"], size=16)
    with pytest.raises(UserError, match="give --classes"):
        open_subjects(["my_models:build"], size=16)


def test_what_does_not_fit_is_refused_in_one_line(backbone, tmp_path):
    with pytest.raises(UserError, match="no such weights file"):
        open_model("resnet18:missing.pth")
    torch.save(backbone.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="no weights of densenet121"):
        open_model(f"densenet121:{tmp_path / 'w.pth'}")
    with pytest.raises(UserError, match="do not fit resnet34"):
        open_model(f"resnet34:{tmp_path / 'w.pth'}")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="no dictionary of weights"):
        open_model(f"resnet18:{tmp_path / 'list.pth'}")
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    with pytest.raises(UserError, match="cannot be read"):
        open_model(f"resnet18:{tmp_path / 'torn.safetensors'}")


class Payload:
    """Would run code when unpickled."""

    def __reduce__(self):
        return (exec, ("raise SystemExit('code ran')",))


def test_a_pickle_is_never_run(tmp_path):
    torch.save({"fc.weight": Payload()}, tmp_path / "evil.pth")
    with pytest.raises(UserError, match="can run code when it is opened, and is refused"):
        open_model(f"resnet18:{tmp_path / 'evil.pth'}")
    (tmp_path / "evil2.pth").write_bytes(pickle.dumps(Payload(), protocol=2))
    with pytest.raises(UserError, match="can run code when it is opened, and is refused"):
        open_model(f"resnet18:{tmp_path / 'evil2.pth'}")
