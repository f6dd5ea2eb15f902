"""Every block of the page on bringing a classifier is run: Python as files, commands as calls."""

from __future__ import annotations

import json
import re
import shlex
import socket
import sys
import threading
import warnings
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import matplotlib.font_manager  # noqa: F401 (its list of fonts is kept in HOME, which is moved)
import numpy as np
import pytest
import timm
import torch
import torchvision

from diascope.audit import open_subjects
from diascope.data import Dataset, Pixels
from diascope.evaluation import predict
from diascope.models.inputs import InputSettings
from diascope.settings import override

PAGE = (Path(__file__).parents[2] / "docs" / "models.md").read_text()
CLASSES = ["mel", "nv", "bkl"]
LIBRARY_WARNINGS = (DeprecationWarning, FutureWarning, PendingDeprecationWarning)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def commands() -> dict[str, list[str]]:
    lines = [shlex.split(line) for block in blocks("bash") for line in block.splitlines()]
    assert all(words[:2] == ["diascope", "audit"] for words in lines)
    return {words[2]: words[3:] for words in lines}


@pytest.fixture
def page(tmp_path, monkeypatch):
    """A folder with the Python files of the page, and nothing that reaches the network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    connect = socket.socket.connect

    def only_here(self, address):
        assert address[0] == "127.0.0.1", f"a connection to {address}"
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", only_here)
    for block in blocks("python"):
        first = block.splitlines()[0]
        if first.startswith("# "):
            (tmp_path / first.removeprefix("# ")).write_text(block)
    names = [path.stem for path in tmp_path.glob("*.py")]
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in names:
        sys.modules.pop(name, None)


def opened(address: str):
    """Open what a command of the page names, with its options, and predict two images."""
    words = commands()[address]
    given = override({}, [word for word in words if word.startswith("input.")])
    rest = [word for word in words if not word.startswith("input.")]
    options = dict.fromkeys(["--classes", "--size", "--data"])
    options |= dict(zip(rest[::2], rest[1::2], strict=True))
    assert set(options) == {"--classes", "--size", "--data"}
    classes = options["--classes"].split(",") if options["--classes"] else None
    size = int(options["--size"]) if options["--size"] else None
    (subject,) = open_subjects([address], classes=classes, size=size, **given)
    side, channels = subject.card["size"], subject.card["preprocess"]["channels"]
    levels = np.random.default_rng(0).integers(0, 256, (2, side, side, channels), np.uint8)
    names = subject.card["classes"]
    data = Dataset.of("d", {"path": ["0", "1"], "label": names[:2]}, names, None)
    table = predict(subject.model, Pixels(data, levels, None, np.zeros(2, bool)))
    assert np.isfinite(table[f"prob_{names[0]}"]).all()
    return subject


def library(name: str):
    """Import a library of others, whose own warnings at import are its own affair."""
    with warnings.catch_warnings():
        for category in LIBRARY_WARNINGS:
            warnings.simplefilter("ignore", category)
        return pytest.importorskip(name, reason=f"{name} is not installed")


def thinned(monkeypatch: pytest.MonkeyPatch, net: type, first: str) -> type:
    """Give a library's DenseNet few channels; the page's code builds it by its name, as ever."""
    thin = {first: 8, "growth_rate": 4, "block_config": (1, 1, 1, 1)}
    real = net.__init__
    monkeypatch.setattr(net, "__init__", lambda self, **given: real(self, **thin, **given))
    return net


def torchvision_weights() -> None:
    torch.manual_seed(0)
    model = torchvision.models.mobilenet_v3_small(weights=None, num_classes=3)
    torch.save(model.state_dict(), "lesions.pth")


def test_torchvision(page):
    torchvision_weights()
    subject = opened("lesions_torchvision:build")
    assert subject.interface.kind == "module"
    assert subject.architecture == "MobileNetV3"
    assert "less mean 0.485" in subject.interface.input
    assert (subject.interface.declared, subject.interface.problems) == (True, [])
    python = [block for block in blocks("python") if "open_subjects" in block]
    assert len(python) == 1
    names: dict[str, object] = {}
    exec(compile(python[0], "models.md", "exec"), names)
    assert names["subject"].interface.size == 64


def test_monai(page, monkeypatch):
    nets = library("monai.networks.nets")
    model = thinned(monkeypatch, nets.DenseNet121, "init_features")(
        spatial_dims=2, in_channels=3, out_channels=3
    )
    torch.save(model.state_dict(), "monai.pt")
    subject = opened("lesions_monai:build")
    assert subject.architecture == "DenseNet121"
    assert subject.gradients


def test_torchxrayvision(page, monkeypatch):
    xrv = library("torchxrayvision")
    build = thinned(monkeypatch, xrv.models.DenseNet, "num_init_features")
    model = build(weights=None, num_classes=2, in_channels=1)
    torch.save(model.state_dict(), "chest.pt")
    subject = opened("chest_xrays:build")
    assert subject.interface.input == "grey in [-1024, 1024]"
    assert (subject.card["size"], subject.card["preprocess"]["channels"]) == (224, 1)
    x = torch.rand(1, 1, 224, 224)
    with torch.no_grad():
        model.eval().load_state_dict(torch.load("chest.pt", weights_only=True))
        torch.testing.assert_close(subject.model(x), model(x * 2048 - 1024))
    assert not list((page / "home").rglob("*"))


def test_hugging_face(page):
    transformers = library("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        image_size=32, patch_size=8, id2label=dict(enumerate(CLASSES)),
    )  # fmt: skip
    transformers.ViTForImageClassification(config).save_pretrained("vit")
    subject = opened("lesions_vit:build")
    assert subject.card["classes"] == CLASSES
    assert subject.card["size"] == 32
    assert any("ImageClassifierOutput" in told for told in subject.interface.statements)
    assert subject.gradients


def test_timm(page):
    model = timm.create_model("mobilenetv3_small_050", num_classes=3)
    torch.save(model.state_dict(), "timm.pth")
    subject = opened("mobilenetv3_small_050:timm.pth")
    assert subject.interface.kind == "timm"
    assert "normalises inside" in subject.interface.input
    assert subject.interface.problems == []


def test_exports(page):
    library("onnxscript")
    small = "from tests.nets import small_net as build\n"  # of what the page builds, in seconds
    (page / "lesions_torchvision.py").write_text(small)
    (export,) = [block for block in blocks("python") if "torch.onnx.export" in block]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporters' own
        exec(compile(export, "models.md", "exec"), {})
    subjects = [opened(f"lesions.{suffix}") for suffix in ("pt2", "ts", "onnx")]
    kinds = ["exported", "torchscript", "onnx"]
    assert [subject.interface.kind for subject in subjects] == kinds
    x = torch.rand(3, 3, 64, 64)
    with torch.no_grad():
        logits = [subject.model(x) for subject in subjects]
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], rtol=1e-3, atol=1e-4)


class Service(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        images = np.array(body["images"])
        p = np.exp(images.mean((2, 3)))
        content = json.dumps({"probabilities": (p / p.sum(1, keepdims=True)).tolist()}).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *words):
        pass


def test_a_service(page):
    file = page / "service.py"
    server = HTTPServer(("127.0.0.1", 0), Service)
    file.write_text(file.read_text().replace("8123", str(server.server_port)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        subject = opened("service:ask")
        x = torch.rand(4, 3, 16, 16)
        torch.testing.assert_close(
            subject.model(x).softmax(1), x.mean((2, 3)).softmax(1), rtol=1e-4, atol=1e-5
        )
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert (subject.interface.kind, subject.interface.outputs) == ("callable", "probabilities")
    assert not subject.gradients


def test_the_page_names_every_setting():
    for name in InputSettings.model_fields:
        assert f"`{name}`" in PAGE
    assert len(blocks("python")) == 7
    assert len(commands()) == 9
