"""The findings for machines: SARIF 2.1.0 and JUnit's XML.

SARIF: OASIS, Static Analysis Results Interchange Format 2.1.0. JUnit: the XML that build servers
read; a finding of medium or high severity is a failure there, any other a passed test with a note.
Its class is MODEL.CHECK, or CHECK alone where it is of the data or of all models.
"""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from diascope.audit.parts import Severity
from diascope.audit.results import Finding, Results
from diascope.files import write_text

LEVELS: dict[Severity, str] = {
    "high": "error",
    "medium": "warning",
    "low": "note",
    "info": "none",
}
FAILING: tuple[Severity, ...] = ("high", "medium")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")  # XML 1.0, 2.2
SARIF = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/os/schemas/sarif-schema-2.1.0.json"


def write_sarif(results: Results, path: Path) -> Path:
    """Write the findings as one SARIF run, with a rule a check, and return the path."""
    checks = list(dict.fromkeys(finding.check for finding in results.findings))
    driver = {
        "name": "Diascope",
        "semanticVersion": results.version,
        "rules": [{"id": check, "name": check} for check in checks],
    }
    content = {
        "$schema": SARIF,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {"driver": driver},
                "results": [_result(f, checks.index(f.check)) for f in results.findings],
                "invocations": [{"executionSuccessful": results.complete}],
            }
        ],
    }
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path


def _result(finding: Finding, rule: int) -> dict[str, Any]:
    files = [file for group in finding.files for file in group]
    return {
        "ruleId": finding.check,
        "ruleIndex": rule,
        "level": LEVELS[finding.severity],
        "kind": "fail" if finding.severity != "info" else "informational",
        "message": {
            "text": f"{finding.title}. {finding.evidence}. {finding.meaning} {finding.remedy}"
        },
        "locations": [
            {"physicalLocation": {"artifactLocation": {"uri": file}}} for file in files[:10]
        ]
        + ([{"logicalLocations": [_model(finding.model)]}] if finding.model else []),
        "properties": {
            "severity": finding.severity,
            "count": finding.count,
            "model": finding.model,
        },
    }


def _model(name: str) -> dict[str, Any]:
    return {"name": name, "fullyQualifiedName": name, "kind": "module"}


def write_junit(results: Results, path: Path) -> Path:
    """Write the findings and the stages as one suite of JUnit's XML, and return the path."""
    failed = [stage for stage in results.stages if stage.state in ("failed", "unfinished")]
    grave = [finding for finding in results.findings if finding.severity in FAILING]
    suite = ET.Element(
        "testsuite",
        name=f"diascope: {results.title}",
        timestamp=results.created,
        time=f"{results.seconds:.1f}",
        tests=str(len(results.findings) + len(results.stages)),
        failures=str(len(grave)),
        errors=str(len(failed)),
    )
    for finding in results.findings:
        of_class = f"{finding.model}.{finding.check}" if finding.model else finding.check
        case = ET.SubElement(suite, "testcase", classname=of_class, name=finding.title)
        told = f"{finding.evidence}\n{finding.meaning}\n{finding.remedy}"
        if finding in grave:
            failure = ET.SubElement(case, "failure", type=finding.severity, message=finding.title)
            failure.text = told
        else:
            ET.SubElement(case, "system-out").text = f"{finding.severity}: {told}"
    for stage in results.stages:
        name = f"{stage.model}: {stage.stage}"
        case = ET.SubElement(
            suite, "testcase", classname="stage", name=name, time=f"{stage.seconds:.1f}"
        )
        if stage in failed:
            ET.SubElement(case, "error", type=stage.state, message=stage.reason)
        elif stage.state == "left out":
            ET.SubElement(case, "skipped", message=stage.reason)
    ET.indent(suite)
    text = ET.tostring(suite, encoding="unicode")
    write_text(path, f'<?xml version="1.0" encoding="utf-8"?>\n{_NOT_XML.sub("?", text)}\n')
    return path
