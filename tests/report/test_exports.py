"""The findings for machines: SARIF and JUnit's XML."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from tests.report.factory import make_results

from diascope.audit.parts import StageReport
from diascope.audit.results import Finding
from diascope.report.exports import write_junit, write_sarif

FINDINGS = [
    Finding("fragility", "high", "a <b> & c", "e\x1b 1", "m", "r", model="standard"),
    Finding("shared", "medium", "two", "e", "m", "r", 2, (("p/1.png", "p/2.png"), ("q.png",))),
    Finding("note", "info", "three", "e", "m", "r"),
]
STAGES = [
    StageReport("standard", "curve", "done", "", 30, 12.5),
    StageReport("standard", "maps", "failed", "out of memory"),
    StageReport("standard", "elsewhere", "left out", "no data"),
    StageReport("standard", "masking", "unfinished", "interrupted"),
]


@pytest.fixture
def results():
    return replace(make_results(cases=0), findings=FINDINGS, stages=STAGES, complete=False)


def test_sarif_holds_a_rule_a_check_and_a_result_a_finding(results, tmp_path):
    content = json.loads(write_sarif(results, tmp_path / "sub" / "r.sarif").read_text())
    assert content["version"] == "2.1.0"
    (run,) = content["runs"]
    rules = [rule["id"] for rule in run["tool"]["driver"]["rules"]]
    assert rules == ["fragility", "shared", "note"]
    assert [r["level"] for r in run["results"]] == ["error", "warning", "none"]
    for found in run["results"]:
        assert rules[found["ruleIndex"]] == found["ruleId"]
    files = [
        p["physicalLocation"]["artifactLocation"]["uri"] for p in run["results"][1]["locations"]
    ]
    assert files == ["p/1.png", "p/2.png", "q.png"]
    assert [r["properties"]["model"] for r in run["results"]] == ["standard", "", ""]
    (where,) = run["results"][0]["locations"]
    assert where["logicalLocations"][0]["name"] == "standard"
    assert run["invocations"] == [{"executionSuccessful": False}]


def test_junit_fails_for_grave_findings_and_errs_for_stages_that_did(results, tmp_path):
    suite = ET.fromstring(write_junit(results, tmp_path / "r.xml").read_text())
    assert suite.tag == "testsuite"
    counts = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors")}
    assert counts == {"tests": 7, "failures": 2, "errors": 2}
    assert len(suite.findall("testcase")) == 7
    assert len(suite.findall("testcase/failure")) == 2
    assert len(suite.findall("testcase/error")) == 2
    assert len(suite.findall("testcase/skipped")) == 1
    first, second = suite.findall("testcase")[:2]
    assert first.attrib["name"] == "a <b> & c"
    assert [first.attrib["classname"], second.attrib["classname"]] == [
        "standard.fragility",
        "shared",
    ]
