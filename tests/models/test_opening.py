"""Files of every kind are told by their content, opened without running code, or refused."""

from __future__ import annotations

import builtins
import importlib
import io
import json
import pickle
import warnings
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.nets import images, small_net
from torch import nn

from diascope.attacks import PGD, Square
from diascope.audit import open_subjects
from diascope.errors import UserError
from diascope.models import create_model, save_model
from diascope.models.black_box import BlackBox
from diascope.models.foreign import open_model
from diascope.models.opening import KINDS, open_classifier

SIDE = 16
CLASSES = ["a", "b", "c"]
SUFFIXES = ("pt", "pth", "ts", "pt2", "onnx", "safetensors", "bin", "pkl", "")


def script(module: nn.Module, file: Path) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"`torch\.jit\.")
        torch.jit.save(torch.jit.script(module), file)


def needs_onnx() -> None:
    for name in ("onnx", "onnxruntime"):
        pytest.importorskip(name, reason=f"{name} is not installed")


def export_onnx(module: nn.Module, file: Path, batch: int = 2, **options: object) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are using the legacy", DeprecationWarning)
        warnings.filterwarnings("ignore", "The feature will be removed", DeprecationWarning)
        torch.onnx.export(
            module,
            (images(batch, side=SIDE, channels=3),),
            str(file),
            dynamo=False,
            input_names=["image"],
            output_names=["out"],
            **options,
        )


@pytest.fixture(scope="module")
def net():
    return small_net()


@pytest.fixture(scope="module")
def files(net, tmp_path_factory):
    """One file a kind, all under suffixes that say something else."""
    folder = tmp_path_factory.mktemp("kinds")
    script(net, folder / "torchscript.onnx")
    batch = {0: torch.export.Dim("batch")}
    program = torch.export.export(net, (images(2, side=SIDE),), dynamic_shapes=(batch,))
    torch.export.save(program, folder / "exported.pt")
    (folder / "exported.pt").rename(folder / "exported.pth")
    if all(find_spec(name) for name in ("onnx", "onnxruntime")):
        export_onnx(net, folder / "onnx.pt2", dynamic_axes={"image": {0: "batch"}})
    return {path.stem: path for path in folder.iterdir()}


@pytest.mark.parametrize("kind", ["torchscript", "exported", "onnx"])
def test_each_kind_of_file_gives_the_same_logits(kind, files, net):
    if kind == "onnx":
        needs_onnx()
    opened = open_classifier(str(files[kind]))
    x = images(5, side=SIDE)
    assert opened.kind == kind
    assert opened.channels in (3, None)
    with torch.no_grad():
        torch.testing.assert_close(opened.model(x), net(x), rtol=1e-4, atol=1e-5)
    (subject,) = open_subjects([files[kind]], classes=CLASSES, size=SIDE)
    assert subject.interface.kind == kind
    assert subject.interface.outputs == "logits"
    assert subject.gradients == (kind != "onnx")
    assert subject.name == kind


def test_functions_of_one_name_are_told_apart_by_their_modules(tmp_path, monkeypatch):
    (tmp_path / "other").mkdir()
    for name in ("onenet", "twonet", "other/onenet"):
        (tmp_path / f"{name}.py").write_text(
            "import torch\n\n\ndef build():\n"
            f"    return torch.nn.Sequential(torch.nn.Conv2d(3, {len(CLASSES)}, 3), "
            "torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())\n\n\n"
            "make_model = load_skin_net = build\n"
        )
    monkeypatch.chdir(tmp_path)
    options = {"classes": CLASSES, "size": SIDE, "input": {"range": "0-1"}}

    def named(*addresses):
        return [subject.name for subject in open_subjects(addresses, **options)]

    assert named("onenet:build") == ["onenet.build"]  # for any model could be called build
    assert named("onenet:make_model", "twonet:build") == ["onenet.make_model", "twonet.build"]
    assert named("onenet:load_skin_net") == ["load_skin_net"]
    skin = [f"{module}:load_skin_net" for module in ("onenet", "twonet")]
    assert named(*skin) == ["onenet.load_skin_net", "twonet.load_skin_net"]
    assert named("onenet:build", "other.onenet:build") == ["onenet.build", "other.onenet.build"]


@pytest.mark.parametrize("kind", ["torchscript", "exported"])
def test_what_is_sealed_is_attacked_as_the_module_itself(kind, files, net):
    model, _ = open_model(str(files[kind]))
    x, y = images(4, side=SIDE), torch.tensor([0, 1, 2, 0])
    attack = PGD(norm="linf", eps=0.1, steps=3, random_start=False)
    ours, theirs = attack(model, x, y), attack(net, x, y)
    assert (ours - x).abs().max() == pytest.approx(0.1, abs=1e-5)
    assert (ours - theirs).abs().mean() < 0.01
    assert sum(p.numel() for p in model.parameters()) == sum(p.numel() for p in net.parameters())
    assert not model.train().training
    assert next(model.double().parameters()).dtype == torch.float64


def test_a_network_of_a_fixed_batch_takes_any(net, tmp_path):
    needs_onnx()
    x = images(5, side=SIDE)
    torch.export.save(torch.export.export(net, (x[:2],)), tmp_path / "two.pt2")
    export_onnx(net, tmp_path / "one.onnx", batch=1)
    export_onnx(net, tmp_path / "three.onnx", batch=3)
    for name in ("two.pt2", "one.onnx", "three.onnx"):
        model, _ = open_model(str(tmp_path / name))
        with torch.no_grad():
            torch.testing.assert_close(model(x), net(x), rtol=1e-4, atol=1e-5)


class Turned(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x):
        return self.inner(x.permute(0, 3, 1, 2))


class Flat(nn.Module):
    def forward(self, x):
        return x.flatten(1)[:, :3]


def test_onnx_of_another_layout_is_turned_and_of_another_shape_refused(net, tmp_path):
    needs_onnx()
    file = tmp_path / "last.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        x = images(2, side=SIDE)
        torch.onnx.export(
            Turned(net).eval(), (x.permute(0, 2, 3, 1),), str(file), dynamo=False, input_names=["i"]
        )
        rows = torch.rand(2, 48)
        torch.onnx.export(Flat().eval(), (rows,), str(tmp_path / "rows.onnx"), dynamo=False)
    (subject,) = open_subjects([file], classes=CLASSES)
    assert subject.card["size"] == SIDE
    assert any("(B, H, W, C)" in told for told in subject.interface.statements)
    with torch.no_grad():
        torch.testing.assert_close(subject.model(x), net(x), rtol=1e-4, atol=1e-5)
    with pytest.raises(UserError, match="not one batch of images") as error:
        open_model(str(tmp_path / "rows.onnx"))
    assert "\n" not in str(error.value)


def test_onnx_weights_beside_the_file_are_read_and_from_elsewhere_refused(net, tmp_path):
    needs_onnx()
    onnx = importlib.import_module("onnx")
    export_onnx(net, tmp_path / "whole.onnx", dynamic_axes={"image": {0: "batch"}})
    model = onnx.load(str(tmp_path / "whole.onnx"))
    inside = tmp_path / "inside"
    inside.mkdir()
    onnx.save(model, str(inside / "m.onnx"), save_as_external_data=True, location="m.data",
              size_threshold=0)  # fmt: skip
    x = images(2, side=SIDE)
    with torch.no_grad():
        torch.testing.assert_close(
            open_model(str(inside / "m.onnx"))[0](x), net(x), rtol=1e-4, atol=1e-5
        )
    for place in ("../m.data", str(inside / "m.data")):
        moved = onnx.load(str(inside / "m.onnx"), load_external_data=False)
        for tensor in moved.graph.initializer:
            for entry in tensor.external_data:
                entry.value = place if entry.key == "location" else entry.value
        (inside / "away.onnx").write_bytes(moved.SerializeToString())
        with pytest.raises(UserError, match="outside of its own folder"):
            open_model(str(inside / "away.onnx"))
    (inside / "m.data").unlink()
    with pytest.raises(UserError, match="are not beside it"):
        open_model(str(inside / "m.onnx"))


def test_without_onnxruntime_one_is_told_how_to_install_it(files, monkeypatch):
    needs_onnx()
    real = builtins.__import__

    def without(name, *args, **options):
        if name == "onnxruntime":
            raise ModuleNotFoundError("no", name="onnxruntime")
        return real(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'diascope\[onnx\]'"):
        open_model(str(files["onnx"]))


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self):
        return (open, (str(self.trace), "w"))


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_pickle_with_code_in_it_is_never_run(suffix, tmp_path):
    trace = tmp_path / "ran"
    file = tmp_path / f"evil.{suffix}".rstrip(".")
    contents = {}
    for name, payload in (("payload", Payload(trace)), ("module", small_net())):
        out = io.BytesIO()
        torch.save({"state_dict": payload}, out)
        contents[f"saved {name}"] = out.getvalue()
        out = io.BytesIO()
        torch.save(payload, out, _use_new_zipfile_serialization=False)
        contents[f"legacy {name}"] = out.getvalue()
    contents["pickle"] = pickle.dumps(Payload(trace))
    contents["old pickle"] = pickle.dumps(Payload(trace), protocol=0)
    for name, content in contents.items():
        file.write_bytes(content)
        for address in (str(file), f"resnet18:{file}"):
            with pytest.raises(UserError) as error:
                open_model(address)
            assert "\n" not in str(error.value), name
            assert not trace.exists(), name
        if not name.startswith("old"):
            with pytest.raises(UserError, match="pickle, which can run code"):
                open_model(str(file))


def rewritten(file: Path, to: Path, change) -> Path:
    """Copy an archive; `change(name, content)` gives the new content of each member, None drops."""
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    return to


def test_an_exported_program_runs_no_code_of_its_file(files, tmp_path):
    trace, file = tmp_path / "ran", files["exported"]
    evil = io.BytesIO()
    torch.save(Payload(trace), evil)
    write = f"__import__('pathlib').Path({str(trace)!r}).touch()"

    def model(edit):
        def change(name, content):
            if not name.endswith("model.json"):
                return content
            found = json.loads(content)
            edit(found)
            return json.dumps(found).encode()

        return change

    def nodes(found):
        return found["graph_module"]["graph"]["nodes"]

    def pickled(name, content):
        if not name.endswith("weights_config.json"):
            return evil.getvalue() if name.endswith("weight_0") else content
        found = json.loads(content)
        next(iter(found["config"].values()))["use_pickle"] = True
        return json.dumps(found).encode()

    def renamed(found):
        text = json.dumps(found).replace('"relu"', json.dumps(f"relu\n{write}\nx"))
        found.clear()
        found.update(json.loads(text))

    def sized(found):
        text = json.dumps(found)
        start = text.index('"expr_str": "') + len('"expr_str": "')
        end = text.index('"', start)
        found.clear()
        found.update(json.loads(text[:start] + write + text[end:]))

    def sample(name, content):
        return evil.getvalue() if "sample_inputs" in name else content

    refused = {
        "calls torch.os.system": model(lambda m: nodes(m)[0].update(target="torch.os.system")),
        "calls _operator.methodcaller": model(
            lambda m: nodes(m)[0].update(target="_operator.methodcaller")
        ),
        "calls torch.ops.aten.from_file": model(
            lambda m: nodes(m)[0].update(target="torch.ops.aten.from_file.default")
        ),
        "has a name that is none": model(renamed),
        "has a name that is none .'torch.relu'": model(
            lambda m: nodes(m)[0]["outputs"][0]["as_tensor"].update(name="torch.relu")
        ),
        "calls torch.os.abort": model(
            lambda m: nodes(m)[0]["inputs"][0].update(arg={"as_operator": "torch.os.abort"})
        ),
        "has a size that is no formula": model(sized),
        "holds a pickled object": pickled,
    }
    for told, change in refused.items():
        with pytest.raises(UserError, match=told):
            open_model(str(rewritten(file, tmp_path / "evil.pt2", change)))
    harmless = {
        "guards": model(lambda m: m.update(guards_code=[write])),
        "sample": sample,
    }
    for change in harmless.values():  # what is not needed is not read
        model_, _ = open_model(str(rewritten(file, tmp_path / "evil.pt2", change)))
        model_(images(2, side=SIDE))
    assert not trace.exists()
    with zipfile.ZipFile(tmp_path / "compiled.pt2", "w") as archive:
        archive.writestr("m/archive_format", "pt2")
        archive.writestr("m/data/aotinductor/model/x.so", b"machine code")
    with pytest.raises(UserError, match="compiled machine code"):
        open_model(str(tmp_path / "compiled.pt2"))


class Saving(nn.Module):
    def __init__(self, file: str) -> None:
        super().__init__()
        self.file = file

    def forward(self, x):
        if x.sum() > 0:
            torch.save(x, self.file)
        return x.mean((2, 3))


class Waking(nn.Module):
    @torch.jit.export
    def __getstate__(self):
        return 1

    @torch.jit.export
    def __setstate__(self, state: int):
        self.training = False

    def forward(self, x):
        return x.mean((2, 3))


def test_torchscript_that_reaches_beyond_tensors_is_refused(tmp_path):
    trace = tmp_path / "ran"
    script(Saving(str(trace)), tmp_path / "saving.pt")
    with pytest.raises(UserError, match="calls aten::save"):
        open_model(str(tmp_path / "saving.pt"))
    script(Waking(), tmp_path / "waking.pt")
    with pytest.raises(UserError, match="__setstate__"):
        open_model(str(tmp_path / "waking.pt"))
    assert not trace.exists()


def test_torn_and_strange_files_end_in_one_line(files, net, tmp_path):
    save_file(net.state_dict(), tmp_path / "weights.safetensors")
    torch.save(net.state_dict(), tmp_path / "weights.pth")
    card = {"classes": CLASSES, "size": SIDE, "preprocess": {}}
    save_model(create_model("resnet18", 3, layers=[1, 1, 1, 1], channels=[8] * 4),
               tmp_path / "run.safetensors", **card)  # fmt: skip
    whole = {**files, "weights": tmp_path / "weights.pth", "run": tmp_path / "run.safetensors"}
    torn = tmp_path / "torn.bin"
    for name, file in whole.items():
        content = file.read_bytes()
        for part in (content[: len(content) // 2], content[:9], content[:1], b""):
            torn.write_bytes(part)
            with pytest.raises(UserError) as error:
                open_model(str(torn))
            assert str(torn) in str(error.value), name
            assert "\n" not in str(error.value), name
    torn.write_bytes(np.random.default_rng(0).bytes(4096))
    with pytest.raises(UserError, match="is no model that can be opened"):
        open_model(str(torn))
    with pytest.raises(UserError, match="has no Diascope header"):
        open_model(str(tmp_path / "weights.safetensors"))
    with pytest.raises(UserError, match="holds weights alone; write NAME:FILE"):
        open_model(str(tmp_path / "weights.pth"))
    with pytest.raises(UserError, match="there is no such file"):
        open_model(str(tmp_path / "nothing.onnx"))
    with pytest.raises(UserError, match="is this a finished run"):
        open_model(str(tmp_path))


def test_every_kind_is_registered():
    assert KINDS.names() == ["exported", "onnx", "python", "run", "timm", "torchscript"]


def test_attacks_that_need_gradients_are_not_offered_on_a_black_box(files):
    needs_onnx()
    model, _ = open_model(str(files["onnx"]))
    assert isinstance(model, BlackBox)
    x, y = images(4, side=SIDE), torch.tensor([0, 1, 2, 0])
    before = model.queries
    Square(norm="linf", eps=0.3, queries=20)(model, x, y)
    assert 0 < model.queries - before <= 4 * 30
    assert not list(model.parameters())
