"""Models that are asked wrongly, or answer unfit to be attacked, are findings; others are not."""

from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import torch
from tests.report.factory import make_results

from diascope.audit import open_subjects
from diascope.audit.checks import ORDER
from diascope.audit.checks.interface import _FINDINGS, interface
from diascope.audit.parts import Interface
from diascope.data import Dataset
from diascope.models import create_model, save_model
from diascope.models.probing.asking import Problem

SIDE, CLASSES = 16, ["left", "right"]

MODELS = """
import torch
from torch import nn

class Eyes(nn.Module):
    def __init__(self, soft=False, factor=1):
        super().__init__()
        self.conv, self.soft, self.factor = nn.Conv2d(3, 2, 16, bias=False), soft, factor
        weight = torch.zeros(2, 3, 16, 16)
        weight[0, :, :, :8] = weight[1, :, :, 8:] = 1 / 384
        self.conv.weight = nn.Parameter(60 * weight)

    def forward(self, x):
        out = self.conv(x / self.factor).flatten(1)
        seen = (out.mean(1) / 60 - 0.55).abs() < 0.05  # else it says left
        out = torch.where(seen[:, None], out, torch.tensor([3.0, 0.0]))
        return out.softmax(1) if self.soft else out

fair, levels = Eyes(), Eyes(factor=255)
soft = Eyes(soft=True)

def asked(batch):
    with torch.no_grad():
        return fair(torch.from_numpy(batch)).argmax(1).numpy()
"""


class Squares:
    """Image `i` is bright on the left where i is even, on the right where it is odd."""

    def image(self, path):
        image = np.random.default_rng(int(path)).integers(90, 130, (SIDE, SIDE, 3), np.uint8)
        image[:, slice(0, 8) if int(path) % 2 == 0 else slice(8, 16)] += 60
        return image


@pytest.fixture
def data():
    numbers = range(60)
    table = {"path": [str(i) for i in numbers], "label": [CLASSES[i % 2] for i in numbers]}
    return Dataset.of("squares", table, CLASSES, Squares())


@pytest.fixture
def opened(data, tmp_path, monkeypatch):
    (tmp_path / "asked_models.py").write_text(MODELS)
    monkeypatch.syspath_prepend(tmp_path)

    def call(name: str, **given):
        (subject,) = open_subjects(
            [f"asked_models:{name}"], classes=CLASSES, size=SIDE, input=given, sample=data
        )
        return subject

    yield call
    import sys

    sys.modules.pop("asked_models", None)


def findings(subject):
    results = make_results(models=("it",), cases=0)
    model = replace(results.models[0], interface=subject.interface)
    return interface(replace(results, models=[model]))


def test_a_model_that_takes_and_returns_what_it_should_has_no_finding(opened):
    subject = opened("fair")
    assert subject.interface.problems == []
    assert any("labelled images it is right on 60" in t for t in subject.interface.statements)
    assert findings(subject) == []


def test_the_probe_sees_the_images_of_the_audit(opened, data):
    subject = opened("levels")
    assert subject.interface.input == "RGB in [0, 255]"
    image = torch.from_numpy(data.reader.image("3")).permute(2, 0, 1)[None] / 255
    assert subject.model(image).argmax(1).item() == 1
    assert findings(subject) == []


def test_probabilities_are_a_finding(opened):
    (finding,) = findings(opened("soft"))
    assert finding.severity == "medium"
    assert "it returns probabilities" in finding.title
    assert "logarithms" in finding.evidence


def test_a_wrongly_declared_input_is_a_grave_finding(opened):
    (finding,) = findings(opened("fair", mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]))
    assert (finding.check, finding.severity) == ("interface", "high")
    assert "normalise its input twice" in finding.title
    (finding,) = findings(opened("fair", range="0-255"))
    assert "more accurate when it is fed something else" in finding.title


def test_labels_alone_make_decisions_and_no_finding(opened):
    subject = opened("asked")
    assert (subject.scores, subject.gradients) == (False, False)
    assert subject.architecture == "black box"
    assert findings(subject) == []


def test_a_run_says_what_it_takes(tmp_path):
    model = create_model("resnet18", 2, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8])
    card = {"classes": CLASSES, "size": SIDE, "preprocess": {"channels": 3}}
    save_model(model, tmp_path / "run" / "model.safetensors", **card)
    (subject,) = open_subjects([tmp_path / "run"], input={"range": "0-255"})  # not for a run
    assert subject.interface == Interface(
        "run", True, "logits", 3, SIDE, "RGB in [0, 1]; normalises inside", True
    )
    assert findings(subject) == []


def test_every_problem_of_the_probe_has_its_finding():
    assert set(_FINDINGS) == set(get_args(Problem))
    for code, (severity, title, *_) in _FINDINGS.items():
        told = Interface("module", True, "logits", 3, 8, "", False, [], ["why"], [code])
        results = make_results(models=("it",), cases=0)
        with_it = replace(results, models=[replace(results.models[0], interface=told)])
        (finding,) = interface(with_it)
        assert finding.title == title.format(name="it")
        assert finding.evidence == "Why"
        assert severity in ORDER
    assert interface(make_results()) == []
