"""An audit that is stopped: by an interrupt, by a kill; nothing that was measured is lost."""

from __future__ import annotations

import json
import signal
import time

import pytest
from tests.audit.squares import TINY
from tests.forked import Forked

import diascope.audit
import diascope.report  # noqa: F401 (each fork has them)
from diascope.data import Preprocess
from diascope.data.phantom import CLASSES
from diascope.models import create_model, save_model

DATA = "phantom:images=60,size=32"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    preprocess = Preprocess(channels=3).model_dump()
    made = create_model("resnet18", len(CLASSES), **TINY)
    path = folder / "m.safetensors"
    save_model(made, path, classes=list(CLASSES), size=32, preprocess=preprocess)
    return path


LOSING = """
import os, signal
from pathlib import Path
from torch import nn

sent = []

class Losing(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.AvgPool2d(8), nn.Flatten(), nn.Linear(48, 3))

    def forward(self, x):
        if not sent and list(Path("audit/stages").glob("*/predictions.json")):
            sent.append(1)
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                for i in range(10**6):
                    i += 1
            except KeyboardInterrupt:  # dropped, as it is in a finaliser
                pass
        return self.net(x)
"""


def begin(model, out, **options):
    words = ["audit", model, "--data", DATA, "--out", out, "attack.steps=2000"]
    words += ["effort.attacks=[pgd]", "effort.explainers=[gradient]", "--cases", 0]
    return Forked(*words, folder=out.parent, DIASCOPE_CACHE=out.parent / "cache", **options)


def test_an_interrupt_leaves_a_report_and_a_kill_what_was_measured(model, tmp_path):
    out = tmp_path / "audit"
    stage = out / "stages" / "m" / "predictions.json"
    process = begin(model, out)
    process.wait_for(stage.exists)
    time.sleep(0.2)
    process.interrupt()
    code, said = process.end(), process.said()
    assert code == 130, said
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    results = json.loads((out / "results.json").read_text())
    assert results["complete"] is False
    states = {report["stage"]: report["state"] for report in results["stages"]}
    assert states["predictions"] == "done"
    assert "unfinished" in states.values()
    assert "accuracy" in (out / "report.html").read_text()

    measured, report = stage.stat().st_mtime_ns, (out / "report.html").read_bytes()
    process = begin(model, out)
    process.wait_for(lambda: "predictions: about" in process.said())
    time.sleep(0.5)
    process.kill()
    assert process.end() == -signal.SIGKILL
    assert (out / "report.html").read_bytes() == report
    assert json.loads((out / "results.json").read_text()) == results
    assert not [f for f in out.rglob("*") if f.name.startswith(".") and f.suffix == ".html"]
    assert stage.stat().st_mtime_ns == measured
    assert json.loads(stage.read_text())["images"] == 60


@pytest.mark.parametrize("deaf", [False, True])
def test_being_terminated_is_an_interrupt(model, tmp_path, deaf):
    out = tmp_path / "audit"
    process = begin(model, out, deaf=deaf)
    process.wait_for((out / "stages" / "m" / "predictions.json").exists)
    process.terminate()
    code, said = process.end(), process.said()
    assert code == 143, said
    assert "the same command goes on from there" in said
    assert "Traceback" not in said
    assert json.loads((out / "results.json").read_text())["complete"] is False
    assert (out / "report.html").exists()


def test_a_request_to_end_that_got_lost_is_heard_all_the_same(tmp_path):
    (tmp_path / "losing.py").write_text(LOSING)
    words = ["audit", "losing:Losing", "--data", DATA, "--classes", ",".join(CLASSES), "--size", 32]
    words += ["--budget", "quick", "--cases", 0, "--out", "audit"]
    process = Forked(*words, folder=tmp_path, DIASCOPE_CACHE=tmp_path / "cache")
    code, said = process.end(), process.said()
    assert code == 143, said
    assert "the same command goes on from there" in said
    results = json.loads((tmp_path / "audit" / "results.json").read_text())
    assert results["complete"] is False
    assert (tmp_path / "audit" / "report.html").exists()
