"""Bad input to an audit: it ends with a sentence, or goes on and says so; nothing is lost."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import socket
import sys
import tempfile

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.audit.squares import TINY

from diascope.audit import images, open_subjects, run
from diascope.cli import audit as verb
from diascope.data import Preprocess
from diascope.data.phantom import CLASSES
from diascope.models import create_model, save_model

DATA = ("--data", "phantom:images=12,size=16", "--budget", "quick")
NAMES = ("--classes", ",".join(CLASSES), "--size", 16)
# no more than a stage or two, for the others are measured elsewhere
COUNTS = ("curve", "attack", "masking", "corruption", "operating", "calibration", "map")
LITTLE = (*(f"effort.{name}_images=0" for name in COUNTS), "replicates=100", "data_checks=false")
TWO = ("fine", "squeezed")
NETS = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head, self.calls = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, classes), 0

    def forward(self, x):
        self.calls += 1
        return self.end(x, self.head(self.conv(x).relu().mean((2, 3))) * 5)

    def end(self, x, out):
        return out

def ending(end, classes=3):
    return type("Ending", (Net,), {"end": end})(classes)

def bright(x):
    return (x.mean((1, 2, 3)) > 0.55)[:, None]

def fails(self, x, out):
    raise ValueError("I am\\nbroken")

def hungry(self, x, out):
    if len(x) > 5:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    return out

def starved(self, x, out):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

def worn(self, x, out):
    if self.calls > 24:
        raise RuntimeError("worn out")
    return out

def writes(self, x, out):
    x.mul_(2)
    return out

class Scaled(Net):
    def forward(self, x):
        return super().forward(x.sub_(0.5).div_(0.25))

fine, two, one, scaled = Net(), Net(2), Net(1), Scaled()
nan = ending(lambda self, x, out: out * torch.nan)
some_nan = ending(lambda self, x, out: torch.where(bright(x), torch.nan, out))
raises, greedy, starving, tired, writing = map(ending, (fails, hungry, starved, worn, writes))
cube = ending(lambda self, x, out: out[:, :, None].expand(-1, -1, 4))
half = ending(lambda self, x, out: out[:1])
mean = ending(lambda self, x, out: out.mean())
squeezed = ending(lambda self, x, out: out.squeeze())
text = ending(lambda self, x, out: "benign")

def costly(x):  # asks for 192 MiB an image, and touches little of it
    return x.new_empty(len(x), 48 << 20)[:, :1].zero_().mean()
def heavy():  # may have 900 MiB beside what its process has when it is asked
    import resource
    def within(self, x, out):
        costly(x[:1])  # threads and what they keep are there before memory is counted
        held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
        before, most = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (held + (900 << 20), most))
        try:
            return out + costly(x)
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (before, most))
    return ending(within)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder with a model, with what is left of models, and with data; where one stands."""
    folder = tmp_path_factory.mktemp("bad")
    (folder / "badnets.py").write_text(NETS)
    (folder / "exits.py").write_text("raise SystemExit(3)\n")
    torch.manual_seed(0)
    made = create_model("resnet18", len(CLASSES), **TINY)
    file, preprocess = folder / "m.safetensors", Preprocess(channels=3).model_dump()
    save_model(made, file, classes=list(CLASSES), size=16, preprocess=preprocess)
    _damage(folder, file)
    for name, counts in {"one": (1, 1, 1), "lacking": (3, 3, 0)}.items():
        for label, count in zip(CLASSES, counts, strict=True):
            for i in range(count):
                image = np.random.default_rng([i, count]).integers(0, 256, (20, 20), np.uint8)
                (folder / name / label).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image).save(folder / name / label / f"{i}.png")
    (folder / "empty").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIASCOPE_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


def _damage(folder, file):
    content, tensors = file.read_bytes(), load_file(file)
    with safe_open(file, "pt") as opened:
        told = opened.metadata()["diascope"]
    (folder / "cut.safetensors").write_bytes(content[: len(content) // 2])
    (folder / "junk.safetensors").write_bytes(b"x" * 500)
    headers = {
        "header": "{not JSON",
        "bare": json.dumps({"format": json.loads(told)["format"]}),
        "size": json.dumps({**json.loads(told), "size": "big"}),
        "prepared": json.dumps({**json.loads(told), "preprocess": {"chanels": 3}}),
        "classes": json.dumps({**json.loads(told), "classes": ["nevus", "mel"]}),
        "lost": json.dumps({**json.loads(told), "data": {"name": "phantom"}}),
    }
    for name, header in headers.items():
        save_file(tensors, folder / f"{name}.safetensors", metadata={"diascope": header})
    nan = {k: v * torch.nan if v.is_floating_point() else v for k, v in tensors.items()}
    save_file(nan, folder / "nan.safetensors", metadata={"diascope": told})

    class Code:
        def __reduce__(self):
            return os.mkdir, (str(folder / "pwned"),)

    (folder / "code.pth").write_bytes(pickle.dumps({"weight": Code()}))


def listed(folder):
    return {path.relative_to(folder) for path in folder.rglob("*")}


def results_of(out):
    assert "<html" in (out / "report.html").read_text()
    return json.loads((out / "results.json").read_text())


def states(results):
    return {stage["stage"]: stage["state"] for stage in results["stages"]}


MODELS = [
    ("nowhere.safetensors", "there is no such file"),
    ("cut.safetensors", "not a readable safetensors file"),
    ("junk.safetensors", "is no model that can be opened"),
    ("header.safetensors", "its Diascope header is damaged"),
    ("bare.safetensors", "its header does not tell its architecture"),
    ("size.safetensors", "its header says size 'big'"),
    ("prepared.safetensors", "unknown key 'chanels': did you mean 'channels'?"),
    ("classes.safetensors", "its header names 2 classes (nevus, mel), and it has 3 outputs"),
    ("lost.safetensors", "its split.csv is not beside it"),
    ("code.pth", "holds a pickle, which can run code when it is opened, and is refused"),
    ("resnet18:code.pth", "holds a pickle, which can run code when it is opened, and is refused"),
    ("exits:model", "fails with SystemExit: 3"),
    ("badnets:none", "the module badnets has no 'none'"),
    ("badnets:fine --classes nevus,keratosis", "has 3 outputs, and 2 classes are declared"),
    ("badnets:one --classes a,b,c", "has 1 outputs, and 3 classes are declared"),
    ("badnets:fine", "nothing says its classes; give --classes"),
    ("badnets:two --classes a,b", "no images of the class 'a' of the models"),
    ("badnets:raises NAMES", "fails on images of shape (2, 3, 16, 16): ValueError: I am broken"),
    ("badnets:starving NAMES", "OutOfMemoryError: CUDA out of memory"),
    ("badnets:nan NAMES", "returns NaN for every one of"),
    ("badnets:cube NAMES", "returns (12, 3, 4) for 12 images, not logits"),
    ("badnets:half NAMES", "returns (1, 3) for 2 images, not logits"),
    ("badnets:mean NAMES", "returns () for 2 images, not logits"),
    ("badnets:text NAMES", "returns a str, not a tensor of logits"),
    ("m.safetensors m.safetensors", "two models are called 'm'"),
    ("m.safetensors badnets:fine --classes " + NAMES[1], "differs from that of m (16)"),
]
SETTINGS = [
    ("--data empty", "no images in it"),
    ("--data lacking", "no images of the class 'melanoma' of the models; it has keratosis, nevus"),
    ("--classes nevus,melanoma", "says itself what its outputs are"),
    ("--size 32", "was trained at 16"),
    ("--positive melanomma", "did you mean 'melanoma'?"),
    ("--group-by hairs", "no column 'hairs'"),
    ("--elsewhere nothere", "unknown dataset 'nothere'"),
    ("effort.attacks=[]", "'attacks' = []"),
    ("effort.attacks=[pgd,nonsense]", "unknown attack 'nonsense'"),
    ("effort.explainers=[gradcam,nonsense]", "unknown explainer 'nonsense'"),
    ("effort.map_image=3", "did you mean 'map_images'?"),
    ("effort.map_images=-3", "greater than or equal to 0"),
    ("effort.severities=[9]", "less than or equal to 5"),
    ("seeed=3", "did you mean 'seed'?"),
    ("seed=-1", "greater than or equal to 0"),
    ("input.rnge=0-1", "did you mean 'range'?"),
    ("--eps 1,x", "give numbers"),
    ("--out m.safetensors", "cannot be written (Not a directory)"),
    ("--out o --sarif .", "is a folder; name a file"),
    ("--out o --junit m.safetensors/findings.xml", "cannot be written"),
]


@pytest.mark.parametrize(
    ("line", "message"), [*MODELS, *((f"m.safetensors {line}", told) for line, told in SETTINGS)]
)
def test_a_mistake_is_one_sentence_before_anything_is_measured(world, diascope, line, message):
    words = [str(n) for word in line.split() for n in (NAMES if word == "NAMES" else (word,))]
    options = [] if "--data" in words else DATA[:2]
    out = [] if "--out" in words else ["--out", "o"]
    done = diascope("audit", *words, *options, *out, cwd=world)
    assert done.returncode == 2, done.stderr
    *before, error = done.stderr.strip().splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert not [told for told in before if not told.startswith("reading images")]
    assert not (world / "pwned").exists()
    assert not (world / "o" / "stages").exists()


def test_weights_that_are_nan_end_the_audit(world, diascope, tmp_path):
    done = diascope("audit", "nan.safetensors", *DATA, *LITTLE, "--out", tmp_path, cwd=world)
    assert done.returncode == 2
    assert "nan: gives no predictions: its outputs are finite for none of 12 images" in done.stderr


def test_outputs_that_are_nan_for_some_images_are_a_finding(world, diascope, tmp_path):
    words = ("audit", "badnets:some_nan", *DATA, *NAMES, *LITTLE, "effort.curve_images=12")
    done = diascope(*words, "--out", tmp_path / "o", cwd=world)
    assert done.returncode == 0, done.stderr
    table = pd.read_parquet(tmp_path / "o" / "tables" / "some_nan.parquet")
    lost = int(table.filter(like="prob_").isna().any(axis=1).sum())
    assert 0 < lost < 12
    assert f"curve: the model returned logits that are not finite for {lost} of 12" in done.stderr
    assert ".py:" not in done.stderr  # no warning as Python writes it
    results = results_of(tmp_path / "o")
    (finding,) = [f for f in results["findings"] if "not finite" in f["title"]]
    assert finding["severity"] == "high"
    assert f"not finite for {lost} of 12 images" in finding["evidence"]


def test_a_model_that_fails_later_loses_nothing_of_before(world, diascope, tmp_path):
    words = ("audit", "badnets:tired", *DATA, *NAMES, *LITTLE[7:], "--cases", 2)
    done = diascope(*words, "--out", tmp_path / "o", cwd=world)
    assert done.returncode == 0, done.stderr
    found = states(results_of(tmp_path / "o"))
    assert found["predictions"] == "done"
    assert found["masking"] == found["cases"] == "failed"
    assert "tired: cases failed: RuntimeError: worn out; the audit goes on" in done.stderr
    assert "worn out" in (tmp_path / "o" / "stages" / "tired" / "cases.error.txt").read_text()


def test_where_memory_runs_out_smaller_batches_find_the_same(world, diascope, tmp_path):
    few = [f"effort.{name}_images={6 if name in ('curve', 'map') else 0}" for name in COUNTS]
    few += ["effort.explainers=[gradient]", "effort.sanity_images=0", "effort.steadiness_images=0"]
    words = (*DATA, *NAMES, *few, "effort.faithfulness_images=1", "replicates=100", "--cases", 3)
    tables = []
    for name in ("fine", "greedy"):
        out = tmp_path / name
        done = diascope("audit", f"badnets:{name}", *words, "--out", out, cwd=world)
        assert done.returncode == 0, done.stderr
        assert set(states(results_of(out)).values()) == {"done", "left out"}
        tables.append(pd.read_parquet(out / "tables" / f"{name}.parquet"))
    assert "greedy: predictions: out of memory; on with batches of 4" in done.stderr
    plain, short = (table.select_dtypes("number") for table in tables)
    np.testing.assert_allclose(plain, short, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux holds a process to its memory")
def test_where_the_system_gives_no_more_memory_the_batch_is_halved(world, fork, tmp_path):
    done = fork("audit", "badnets:heavy", *DATA, *NAMES, *LITTLE, "--out", tmp_path, cwd=world)
    assert done.returncode == 0, done.stderr
    assert "heavy: predictions: out of memory; on with batches of" in done.stderr
    assert states(results_of(tmp_path))["predictions"] == "done"


def test_cases_are_made_in_smaller_batches_where_memory_runs_out(world, diascope, tmp_path):
    real, sizes = run.cases, []

    def hungry(*args, batch_size, **options):
        sizes.append(batch_size)
        if batch_size > 20:
            raise MemoryError
        return real(*args, batch_size=batch_size, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "cases", hungry)
        words = ("audit", "badnets:fine", *DATA, *NAMES, *LITTLE, "--cases", 2)
        done = diascope(*words, "--out", tmp_path / "o", cwd=world)
    assert sizes == [64, 32, 16]
    assert "fine: cases: out of memory; on with batches of 16" in done.stderr
    assert states(results_of(tmp_path / "o")).get("cases") is None


def test_a_model_that_writes_into_its_images_is_given_copies(world, monkeypatch):
    monkeypatch.syspath_prepend(str(world))
    x, logits = torch.rand(4, 3, 16, 16), {}
    for name in ("fine", "writing", "scaled"):
        (subject,) = open_subjects([f"badnets:{name}"], classes=CLASSES, size=16)
        told = " ".join(subject.interface.statements)
        assert ("it is given copies" in told) == (name != "fine")
        assert subject.gradients == (name != "writing")  # torch itself refuses that one
        with torch.no_grad():
            given = x.clone()
            logits[name] = subject.model(given)
        assert torch.equal(given, x)
    torch.testing.assert_close(logits["writing"], logits["fine"])
    assert not torch.allclose(logits["scaled"], logits["fine"])


def test_a_model_that_cannot_take_one_image_is_given_it_twice(world, monkeypatch):
    monkeypatch.syspath_prepend(str(world))
    opened = [open_subjects([f"badnets:{n}"], classes=CLASSES, size=16)[0] for n in TWO]
    assert "such an image twice" in " ".join(opened[1].interface.statements)
    x = torch.rand(3, 3, 16, 16)
    for part in (x, x[:1]):
        fine, squeezed = (subject.model(part) for subject in opened)
        torch.testing.assert_close(squeezed, fine)


@pytest.mark.parametrize("extra", [("--data", "one"), (*DATA[:2], "--images", 1)])
def test_of_one_image_a_class_and_of_one_image_there_is_a_report(world, diascope, tmp_path, extra):
    words = ("audit", "m.safetensors", *extra, *DATA[2:], "replicates=100", "--cases", 1)
    done = diascope(*words, *LITTLE[1:-1], "--out", tmp_path / "o", cwd=world)
    assert done.returncode == 0, done.stderr
    results = results_of(tmp_path / "o")
    assert not [stage for stage in results["stages"] if stage["state"] == "failed"]
    value, low, high = results["models"][0]["scores"]["accuracy"]
    assert 0 <= value <= 1
    if "--images" in extra:
        assert low is high is None


@pytest.mark.parametrize("place", ["predictions.json", "m.parquet", "results.json", "report.html"])
def test_a_full_disk_ends_the_audit_and_keeps_what_was_measured(
    world, diascope, tmp_path, monkeypatch, place
):
    real, out = tempfile.mkstemp, tmp_path / "o"

    def full(*, prefix, **options):
        if prefix == f".{place}.":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), prefix)
        return real(prefix=prefix, **options)

    words = ("audit", "m.safetensors", *DATA, *LITTLE, "--cases", 0, "--out", out)
    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "mkstemp", full)
        done = diascope(*words, cwd=world)
    assert done.returncode == 2
    error = done.stderr.strip().splitlines()[-1]
    assert "(No space left on device); once it can, run the same command again" in error
    assert not (out / "report.html").exists()
    stages = {path.name: path.stat().st_mtime_ns for path in out.rglob("stages/m/*.json")}
    assert len(stages) > 2 or place.startswith("predictions")
    assert diascope(*words, cwd=world).returncode == 0
    assert results_of(out)["complete"]
    again = {path.name: path.stat().st_mtime_ns for path in out.rglob("stages/m/*.json")}
    assert stages.items() <= again.items()


def _interrupted(*args, **options):
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["cases", "audited_findings"])
def test_an_interrupt_behind_the_stages_leaves_a_report(
    world, diascope, tmp_path, monkeypatch, where
):
    monkeypatch.setattr(run, where, _interrupted)
    words = ("audit", "m.safetensors", *DATA, *LITTLE[:-1], "--cases", 1)
    done = diascope(*words, "--out", tmp_path / "o", cwd=world)
    assert done.returncode == 130
    assert "report.html holds what was finished; the same command goes on" in done.stderr
    results = results_of(tmp_path / "o")
    assert not results["complete"]
    assert states(results)["predictions"] == "done"
    assert "unfinished" in states(results).values()


def test_an_interrupt_while_images_are_read_is_one_sentence(world, diascope, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "load_pixels", _interrupted)
    done = diascope("audit", "m.safetensors", *DATA, "--out", tmp_path / "o", cwd=world)
    assert done.returncode == 130
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("interrupted; what was read and measured is kept")


def test_checks_of_the_data_that_fail_lose_nothing(world, diascope, tmp_path, monkeypatch):
    def broken(*args, **options):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(run, "audited_findings", broken)
    words = ("audit", "m.safetensors", *DATA, *LITTLE[:-1], "--cases", 0)
    done = diascope(*words, "--out", tmp_path / "o", cwd=world)
    assert done.returncode == 0, done.stderr
    assert "data: data_checks failed: ZeroDivisionError: by nothing" in done.stderr
    assert any("data_checks" in f["title"] for f in results_of(tmp_path / "o")["findings"])


def test_without_network_and_cache_only_the_output_folder_is_written(
    world, diascope, tmp_path, monkeypatch
):
    def cut(*args, **options):
        raise OSError(errno.ENETUNREACH, "Network is unreachable")

    stand, out = tmp_path / "stand", tmp_path / "o"
    stand.mkdir()
    shutil.copy(world / "m.safetensors", stand)
    monkeypatch.setattr(socket.socket, "connect", cut)
    monkeypatch.setattr(socket, "getaddrinfo", cut)
    monkeypatch.setenv("DIASCOPE_CACHE", "/dev/null/cache")  # not even for root
    monkeypatch.setenv("HOME", str(stand))
    before = listed(stand), listed(world)
    words = ("audit", "m.safetensors", *DATA, *LITTLE[:-1], "--cases", 1, "--out", out)
    for _ in range(2):
        done = diascope(*words, cwd=stand)
        assert done.returncode == 0, done.stderr
        assert f"cache cannot be written; the pixels are in {out / 'pixels'}" in done.stderr
    assert (listed(stand), listed(world)) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o", "stand"]


def test_without_a_temporary_folder_the_output_folder_is_one(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_get_default_tempdir", _no_folder)
    verb._at_home(tmp_path / "o")
    assert tempfile.gettempdir() == str(tmp_path / "o")


def _no_folder():
    raise FileNotFoundError(errno.ENOENT, "No usable temporary directory found")
