from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
from tests.report.factory import bare_results, make_results

from diascope.audit.schema import FIELDS, fields, json_schema, tables, types

jsonschema = pytest.importorskip("jsonschema")
DOCS = Path(__file__).parents[2] / "docs" / "schema.md"
AGAIN = "python -m diascope.audit.schema > src/diascope/audit/schema/results-2.json"


@pytest.fixture(scope="module")
def validator():
    return jsonschema.Draft202012Validator(json_schema())


@pytest.fixture(scope="module")
def written():
    return json.loads(json.dumps(make_results(cases=1).to_json(), allow_nan=False))


def test_the_written_schema_is_up_to_date():
    text = files("diascope.audit.schema").joinpath("results-2.json").read_text("utf-8")
    assert json.loads(text) == json_schema(), f"the types have changed; run {AGAIN}"


def test_every_field_is_described_and_every_description_is_of_a_field():
    assert set(FIELDS) == {kind.__name__ for kind in types()}
    for kind in types():
        described = FIELDS[kind.__name__]
        assert set(described) == {"", *fields(kind)}, kind.__name__
        assert all(described.values())


def test_the_docs_hold_the_tables_as_they_are():
    assert tables() in DOCS.read_text(encoding="utf-8"), (
        "run python -m diascope.audit.schema --table and put it into docs/schema.md"
    )


def test_the_schema_is_one_and_results_with_and_without_parts_fit_it(validator, written):
    jsonschema.Draft202012Validator.check_schema(json_schema())
    validator.validate(written)
    validator.validate(bare_results(models=("only",), masks=False, cases=0).to_json())


def test_numbers_that_are_not_finite_are_null_and_fit(validator):
    results = make_results(cases=0)
    model = replace(results.models[0], curve=[(math.nan,) * 3] * 5, median_epsilon=math.inf)
    found = replace(results, models=[model]).to_json()
    assert found["models"][0]["curve"][0] == [None, None, None]
    validator.validate(found)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda r: r.pop("findings"),
        lambda r: r.update(more=1),
        lambda r: r.update(schema="diascope-results-1"),
        lambda r: r["models"][0]["curve"].append([0.5, 0.4]),
        lambda r: r["models"][0]["masking"][0].update(verdict="maybe"),
        lambda r: r["models"][0].update(parameters="many"),
        lambda r: r["stages"][0].update(seconds="long"),
    ],
    ids=["missing", "unknown", "version", "limits", "verdict", "type", "deep type"],
)
def test_what_does_not_fit_is_refused(validator, written, spoil):
    spoilt = copy.deepcopy(written)
    spoil(spoilt)
    assert not validator.is_valid(spoilt)
