"""What is finished stays known when a field is added, and not when its meaning changes."""

from __future__ import annotations

from dataclasses import dataclass, make_dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.studies.toystudy import written

from diascope.objectives.base import objectives
from diascope.registry import added, without_added
from diascope.settings import Settings
from diascope.settings import added as added_setting
from diascope.studies.evaluations import EVALUATIONS
from diascope.studies.evaluations.predictions import Predictions
from diascope.studies.identity import _of_model
from diascope.studies.planning import Plan, plan_study
from diascope.studies.study import read_study

MEASURES = {
    "robust": {"name": "robust", "epsilons": [0.1]},
    "maps": "maps",
    "agreement": "agreement",
    "attention_shift": {"name": "attention_shift", "epsilons": [0.1]},
    "choice": {"name": "choice", "explainer": {"name": "gradient"}},
    "examples": "examples",
}
# Of finished work in people's stores: a key that changes here trains and examines all of it anew.
# A field that was added is to be an `added` one; one whose meaning changed raises a `revision`.
KEYS = {
    "train first, seed 0": "b0f44996cc04a61ab47f",
    "clean of first, seed 0": "b0fb342d3ca2980f5a18",
    "robust of first, seed 0": "0153ac6c431f3d22c783",
    "maps of first, seed 0": "a7439fa61ab26fbf079c",
    "agreement of first, seed 0": "0f36fc38cca7885aadcf",
    "attention_shift of first, seed 0": "f44bd066dc9ffafede1b",
    "choice of first, seed 0": "0fd70d14a72ff335ea69",
    "examples of first, seed 0": "eca9bdedd0afb2ca4859",
    "train second, seed 0": "6924e140dcfb7c0dfaee",
    "clean of second, seed 0": "284f73a8f7fdf8a57812",
    "train guided, seed 0": "934ca084f8adfff8a6d6",
    "clean of guided, seed 0": "7fd41163a5b00d71c04e",
    "train attacked, seed 0": "88f7ea1217d43d5e0c4e",
    "clean of attacked, seed 0": "bd00297793ccda5f5c68",
}


def planned(folder: Path, **changes: Any) -> Plan:
    file = written(folder, **changes)
    return plan_study(read_study(file), file)


def test_keys_of_finished_work_stay_what_they_are(tmp_path: Path) -> None:
    guided = {"objective": {"name": "saliency-guided"}}
    attacked = {"objective": {"name": "adversarial", "attack": {"name": "pgd", "norm": "l2"}}}
    evaluations = {
        name: {"measure": measure, "on": "held-out", "runs": ["first"]}
        for name, measure in MEASURES.items()
    }
    plan = planned(tmp_path, runs={"guided": guided, "attacked": attacked}, evaluations=evaluations)
    assert {job.label.partition(": ")[2]: job.key for job in plan.jobs} == KEYS


def test_an_added_field_is_no_part_of_a_key_while_it_has_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = planned(tmp_path).tables["clean"]["first"][0]
    more = make_dataclass(
        "More", [("depth", int, added(3))], bases=(Predictions,), frozen=True, kw_only=True
    )
    more.__module__ = Predictions.__module__
    EVALUATIONS.names()
    monkeypatch.setitem(EVALUATIONS._members, "predictions", more)
    assert planned(tmp_path).tables["clean"]["first"][0] == before
    deep = {"evaluations.clean.measure": {"name": "predictions", "depth": 4}}
    assert planned(tmp_path, **deep).tables["clean"]["first"][0] != before


def test_added_settings_are_left_out_within_others() -> None:
    class Inner(Settings):
        rate: float = 0.1
        fresh: int = added_setting(2)

    class Outer(Settings):
        inner: Inner | None = Inner()
        kept: int = 2

    dump = lambda outer: _of_model(Outer, outer.model_dump())
    assert dump(Outer()) == {"inner": {"rate": 0.1}, "kept": 2}
    assert dump(Outer(inner=Inner(fresh=3)))["inner"] == {"rate": 0.1, "fresh": 3}


def test_an_added_field_of_a_member_within_another_is_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"name": "adversarial", "attack": {"name": "pgd", "steps": 7, "fresh": 1}}
    from diascope.attacks.base import attacks

    @dataclass(frozen=True)
    class Attack:
        steps: int = 7
        fresh: int = added(1)

    attacks.names()
    monkeypatch.setitem(attacks._members, "pgd", Attack)
    assert without_added(objectives, settings)["attack"] == {"name": "pgd", "steps": 7}
    settings["attack"]["fresh"] = 2  # type: ignore[index]
    assert without_added(objectives, settings) == settings


def test_a_raised_revision_is_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guided = {"runs": {"guided": {"objective": {"name": "saliency-guided"}}}}
    before = planned(tmp_path, **guided)
    monkeypatch.setattr(Predictions, "revision", 2, raising=False)
    after = planned(tmp_path, **guided)
    assert after.runs == before.runs
    assert after.tables["clean"]["first"] != before.tables["clean"]["first"]
    monkeypatch.setattr(objectives["saliency-guided"], "revision", 2, raising=False)
    again = planned(tmp_path, **guided)
    assert again.runs["guided"] != before.runs["guided"]
    assert again.runs["first"] == before.runs["first"]
