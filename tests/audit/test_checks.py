"""Every check has results that it finds fault with, and results that it does not."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from diascope.audit import checks
from diascope.audit.checks import CHECKS, ORDER, run_checks
from diascope.audit.parts import (
    Confusion,
    Faithful,
    Localisation,
    MapScores,
    Operating,
    OperatingPoint,
    SanityStep,
    Steadiness,
)
from diascope.audit.results import ModelResult, Results

SURE = (0.9, 0.88, 0.92)
LOCAL = Localisation((0.6,) * 3, (0.2,) * 3, (0.5,) * 3, (0.4, 0.3, 0.5), (0.1, 0.05, 0.15))


def results(**changes) -> Results:
    values = {
        "name": "m",
        "architecture": "resnet18",
        "parameters": 1,
        "objective": {},
        "scores": {"accuracy": SURE, "balanced_accuracy": SURE, "auroc": SURE},
        "recall": {},
        "curve": [SURE, SURE, SURE],
        "median_epsilon": 1.0,
        "localisation": {"average_precision": LOCAL},
        "localisation_correct": {},
    }
    model = ModelResult(**{**values, **changes})
    return Results(
        title="t",
        version="0",
        created="",
        command="",
        seed=0,
        hardware={},
        seconds=0.0,
        data={"majority": 0.6, "chance": 1 / 3, "size": 64},
        norm="linf",
        attack={},
        explainer={},
        epsilons=[0.0, 0.5 / 255, 3 / 255],
        models=[model],
        comparisons=[],
        findings=[],
        tables={},
        cases_rule="",
    )


LOW = (0.1, 0.05, 0.15)
NAN = (float("nan"),) * 3
GAIN = Faithful(LOW, LOW, LOW, over_random=(0.0, -0.1, 0.1), over_centre=LOW, images=32)
SAME = MapScores("edges", {}, 32, sanity=[SanityStep("fc", {"spearman": 0.9})], passed=False)
UNSTEADY = MapScores("edges", {}, 32, steadiness=[Steadiness("noise 0.01", "spearman", LOW, 32)])
UNFAITHFUL = MapScores("edges", {}, 32, faithfulness={"road": GAIN})
MISSING = Operating(["a"], "r", 0.5, "c", [OperatingPoint(0.0, 20, 10, 10, LOW, SURE, 9, 1)])
FAULTS = {
    "accuracy": (
        {"scores": {"accuracy": (0.6, 0.55, 0.65), "balanced_accuracy": (0.34, 0.3, 0.4)}},
        "high",
    ),
    "fragility": ({"curve": [SURE, LOW, LOW]}, "high"),
    "centre": (
        {"localisation": {"average_precision": replace(LOCAL, above_centre=(-0.1, -0.2, -0.05))}},
        "low",
    ),
    "operating": ({"operating": MISSING}, "medium"),
    "errors": (
        {"recall": {"a": LOW, "b": SURE}, "confusion": [Confusion(0.0, [[2, 18], [2, 18]])]},
        "medium",
    ),
    "sanity": ({"maps": [SAME]}, "medium"),
    "steadiness": ({"maps": [UNSTEADY]}, "medium"),
    "faithfulness": ({"maps": [UNFAITHFUL]}, "medium"),
}


def test_every_check_is_tested():
    others = [p.read_text() for p in Path(__file__).parent.glob("test_*.py") if p != Path(__file__)]
    named = {name for name in CHECKS for text in others if f'"{name}"' in text}
    imported = {name for name in CHECKS for text in others if f"audit.checks.{name} import" in text}
    assert set(FAULTS) <= set(CHECKS)
    assert set(CHECKS) == set(FAULTS) | named | imported


def test_every_finding_of_a_model_names_it():
    for file in Path(checks.__file__).parent.glob("*.py"):
        tree = ast.parse(file.read_text())
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        made = [call for call in calls if getattr(call.func, "id", "") == "Finding"]
        named = [call for call in made if "model" in {word.arg for word in call.keywords}]
        assert named == made or file.stem == "__init__", file  # which says that a check failed


@pytest.mark.parametrize("name", FAULTS)
def test_finds_the_fault_and_nothing_else(name):
    changes, severity = FAULTS[name]
    (finding,) = CHECKS[name](results(**changes))
    assert finding.check == name
    assert finding.severity == severity
    assert "m" in finding.title
    assert finding.model == "m"
    assert all((finding.evidence, finding.meaning, finding.remedy))
    assert CHECKS[name](results()) == []


def test_a_skilled_model_on_unbalanced_data_is_no_fault():
    scores = {"accuracy": (0.6, 0.55, 0.65), "balanced_accuracy": (0.75, 0.7, 0.8)}
    assert CHECKS["accuracy"](results(scores=scores)) == []


def test_what_is_undefined_is_no_fault():
    scores = {"accuracy": NAN, "balanced_accuracy": NAN}
    undefined = results(scores=scores, curve=[NAN] * 3, localisation={})
    assert run_checks(undefined) == []


def test_fragility_is_judged_by_what_can_be_seen():
    assert CHECKS["fragility"](results(curve=[SURE, SURE, LOW]))[0].severity == "medium"
    seen = replace(results(curve=[SURE, SURE, LOW]), epsilons=[0.0, 0.01, 0.1])
    assert CHECKS["fragility"](seen) == []
    guessing = (0.3, 0.25, 0.36)  # as it is: an attack takes nothing from it
    assert CHECKS["fragility"](results(curve=[guessing, LOW, LOW])) == []


def test_the_gravest_comes_first():
    faults = {key: value for changes, _ in FAULTS.values() for key, value in changes.items()}
    severities = [finding.severity for finding in run_checks(results(**faults))]
    assert severities == sorted(severities, key=ORDER.index)
    assert severities[0] == "high"


def test_a_check_that_fails_is_a_finding_and_the_others_are_kept(monkeypatch):
    def broken(results: Results):
        raise ValueError("nothing to divide by")

    kept = run_checks(results(curve=[SURE, SURE, LOW]))
    monkeypatch.setitem(CHECKS._members, "sanity", broken)
    found = run_checks(results(curve=[SURE, SURE, LOW]))
    (failed,) = [f for f in found if f.title == "The check 'sanity' failed"]
    assert failed.evidence == "ValueError: nothing to divide by"
    assert [f for f in found if f is not failed] == kept
