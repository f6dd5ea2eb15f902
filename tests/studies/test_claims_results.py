from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from tests.studies.claim_tables import GREATER, decided, table

from diascope.errors import UserError
from diascope.studies.results import (
    SCHEMA,
    Bounds,
    ClaimResult,
    JobResult,
    StudyResults,
    claims_table,
    load,
    save,
    told,
    verdict_text,
    would_decide,
)

NOISE = np.random.default_rng(0).normal(0, 0.1, 40)


def claims():
    def frames(mean, seeds):
        turns = range(1, seeds + 1)
        return {
            "a": [table(np.arange(40), v=mean + np.roll(NOISE, s)) for s in turns],
            "b": [table(np.arange(40), v=0.3 + np.roll(NOISE, -s)) for s in turns],
        }

    some = decided(GREATER, frames(0.6, 3))
    within = {"name": "equal", "a": "a/e.v", "b": "b/e.v", "within": 0.05}
    open_ = decided(within, frames(0.345, 5))
    return [
        dataclasses.replace(some, name="P4.a", published={"a": 51.79, "b": "27.88"}, where="4.2"),
        dataclasses.replace(open_, name="P4.b", instead_of="CIFAR-10"),
        ClaimResult("P2.c", "they meet", "", "not testable here", reason="no such images"),
    ]


def study_results(**more):
    return StudyResults(
        name="p4",
        title="MNIST",
        source="P4",
        scale="small",
        study={"seeds": [0, 1, 2]},
        claims=claims(),
        jobs=[JobResult("k", "train a", "train", "done", 3.5, hardware={"threads": 2})],
        tables={"e": {"a": {"0": "key"}}},
        about={"e": {"a": {"0": {"passes": np.int64(3), "share": np.float32(0.5)}}}},
        masking={},
        regenerate="diascope study run p4.yaml",
        created="2026-01-01",
        seconds=3.5,
        **more,
    )


def test_results_come_back_as_they_were_saved(tmp_path):
    results = study_results()
    path = save(results, tmp_path)
    assert path == tmp_path / "results.json"
    for place in (path, tmp_path):
        assert load(place) == results
    assert json.loads(path.read_text())["schema"] == SCHEMA
    assert load(path).claims[0].decision.by_seed.keys() == {0, 1, 2}


def test_what_is_not_a_number_is_written_as_null(tmp_path):
    results = study_results()
    results.about["e"]["a"]["0"]["odd"] = [float("nan"), float("inf")]
    path = save(results, tmp_path)
    assert "NaN" not in path.read_text()
    assert load(path).about["e"]["a"]["0"]["odd"] == [None, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no such file"),
        ("{", "cannot be read"),
        ("[]", "no results of a study"),
        ('{"schema": "diascope-audit-1"}', "'diascope-audit-1'"),
        (json.dumps({"schema": SCHEMA}), "'name': field required"),
    ],
)
def test_a_file_that_holds_no_results_is_the_users_mistake(tmp_path, text, said):
    path = tmp_path / "results.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError) as caught:
        load(path)
    assert said in str(caught.value)
    assert str(path) in str(caught.value)


def test_the_table_of_claims():
    made = claims()
    lines = claims_table(made).splitlines()
    assert lines[0] == "| claim | published | ours | seeds | p (Holm) | verdict |"
    rows = [[cell.strip() for cell in line.split(" | ")] for line in lines[2:5]]
    assert {len(row) for row in rows} == {6}
    some, open_, untestable = rows
    assert "a: 51.79<br>b: 27.88<br>(4.2)" in some[1]
    effect = made[0].decision.effect
    assert f"effect {told(effect)}" in some[2]
    assert f"a/e.v: {told(made[0].decision.quantities[0].bounds)}" in some[2]
    assert some[3].startswith("0: 0.3")
    assert some[3].count("<br>") == 2
    assert some[4] == "< 0.001"
    assert some[5] == "supported, of these 3 models of each run |"
    assert r"\|a/e.v - b/e.v\| < 0.05" in open_[0]
    assert "instead of: CIFAR-10" in open_[0]
    assert open_[3] == "5"
    assert open_[5].startswith("undecided (about ")
    assert "images (more than the 40 that there are) would decide it" in open_[5]
    assert untestable[1:] == ["", "", "", "", "not testable here |"]
    assert lines[6] == "- **P2.c**: no such images"


def undecided(claim, **more):
    decision = dataclasses.replace(claim.decision, verdict="undecided", **more)
    return dataclasses.replace(claim, verdict="undecided", decision=decision, these_seeds=None)


def test_what_would_decide_is_told_as_far_as_it_is_known():
    few, many, _ = claims()
    assert would_decide(few) == ""
    new = "of new models nothing is said with fewer than five seeds"
    assert would_decide(undecided(few)) == f"no number of images would decide it; {new}"
    differ = "it takes five seeds or more, for these differ"
    assert would_decide(undecided(few, seeds_differ=True)) == differ
    said = would_decide(undecided(few, needed_images=1234, available_images=748))
    assert said.startswith(
        "about 1,300 images (more than the 748 that there are) would decide it for these 3 models"
    )
    assert said.endswith(new)
    assert would_decide(undecided(few, needed_images=1234, seeds_differ=True)) == differ
    alike = would_decide(undecided(many, seeds_drawn=False, needed_images=None))
    assert alike.endswith("of new models nothing is said where all seeds agree exactly")
    none = dict.fromkeys(("needed_images", "needed_seeds", "needed_both", "available_images"), None)
    told = {
        "about 99 images or 6 seeds": {"needed_images": 99, "needed_seeds": 6},
        "about 860 images and 22 seeds together, and neither alone,": {"needed_both": (854, 22)},
        "no number of images and seeds that could be had": {},
    }
    for words, needed in told.items():
        said = would_decide(undecided(many, **{**none, **needed}))
        assert said == f"{words} would decide it, if the effect stays as it is"
    strongest = undecided(many, **{**none, "needed_images": 77}).decision
    sure = dataclasses.replace(many.decision, verdict="supported")
    open_ = dataclasses.replace(many, verdict="undecided", decision=sure, strongest=strongest)
    assert would_decide(open_).startswith("about 77 images would decide it")


def test_a_verdict_of_few_seeds_names_them():
    some, _, untestable = claims()
    assert verdict_text(some) == "supported, of these 3 models of each run"
    one = dataclasses.replace(some, these_seeds=1)
    assert verdict_text(one) == "supported, of this one model of each run"
    assert verdict_text(untestable) == "not testable here"
    qualified = dataclasses.replace(some, qualifications=["more steps may take more away"])
    assert "<br>but more steps may take more away" in claims_table([qualified])


def test_a_value_without_limits_is_told_alone():
    assert told(Bounds(0.12345, None, None)) == "0.123"
    assert told(Bounds(-0.5, -0.75, 0.25), 2) == "-0.50 [-0.75, 0.25]"
