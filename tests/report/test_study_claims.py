"""A claim as a reader meets it: its seeds, its bound, its quantities, its checks."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from tests.report.studyfactory import around, decision, make_claims, make_study

from diascope.report.study import words, write_study_report
from diascope.report.study.charts import bar_chart
from diascope.report.study.checks import checks_lines, claim_checks
from diascope.report.study.claims import shown
from diascope.report.study.markdown import claim_cells
from diascope.report.study.series import Bar, Bars, Value
from diascope.studies.results import Condition, FailedCheck, QuantityResult


@pytest.fixture
def results(tmp_path):
    return make_study(tmp_path, images=12)


def chart(edges):
    return str(
        bar_chart(Bars("E", [Bar("effect", 0, Value((0.119, 0.08, 0.16)))], False, edges), "e")
    )


def test_the_chart_of_a_claim_shows_what_the_effect_is_held_against():
    without, at_least, equal = chart([]), chart([0.35]), chart([-0.05, 0.05])
    assert "bound" not in without
    assert at_least.count('class="bound"') == 1
    assert "The claim holds above 0.35." in at_least
    assert equal.count('class="bound"') == 2
    assert "The claim holds between -0.05 and 0.05." in equal
    whisker = re.search(r'class="whisker" d="M([\d.]+) [\d.]+H([\d.]+)"', at_least)
    shade = re.search(r'class="holds" x="([\d.]+)" y="[\d.]+" width="([\d.]+)"', at_least)
    assert float(whisker[2]) < float(shade[1])
    assert float(shade[2]) > 10


def test_two_claims_on_one_effect_that_ask_for_different_bounds_have_different_charts(results):
    claims = [
        replace(results.claims[1], decision=decision("refuted", 0.12, (0, 1, 2), thresholds=[edge]))
        for edge in (0.0, 0.35)
    ]
    first, second = shown(replace(results, claims=claims))[:2]
    assert (first.side, second.side) == ("above 0", "above 0.35")
    assert str(first.chart).replace("claim-1", "") != str(second.chart).replace("claim-2", "")


def test_all_quantities_of_a_peak_are_shown_and_its_subject_first(results):
    names = ["st", "sgt", "at", "sga", "asgt"]
    quantities = [
        QuantityResult(f"{name}/attacked.pgd@0.2", around(0.1), {0: 0.1}, 80, 40) for name in names
    ]
    peak = replace(
        results.claims[1], decision=replace(results.claims[1].decision, quantities=quantities)
    )
    test = {"name": "peak", "quantities": names, "among": names, "inside": ["asgt"]}
    study = {**results.study, "claims": {"clean": {"test": test}}}
    (found, *_) = shown(replace(results, claims=[peak], study=study))
    assert [name.partition("/")[0] for name, _ in found.ours] == ["asgt", "st", "sgt", "at", "sga"]


def test_seeds_on_both_sides_of_a_bound_are_told():
    few = decision("undecided", 0.3, (0, 1, 2), thresholds=[0.3])
    assert words.seeds_apart(few) == "the seeds lie on both sides of 0.3"
    assert words.seeds_apart(replace(few, by_seed={0: -0.1, 1: 0.1})) == "the seeds differ in sign"
    assert words.seeds_apart(replace(few, by_seed={0: 0.31, 1: 0.5})) == ""


def test_checks_were_not_run_or_failed_or_did_not():
    claim = replace(make_claims()[4], checked={"a": 0, "b": 3, "c": 3})
    failed = FailedCheck("c", "attacked", "plateau", [0, 2], 3, "attack", False, "20 of 32")
    told = [(c.sign, c.run, c.told) for c in claim_checks(replace(claim, failed=[failed]))]
    assert told == [
        ("○", "a", "the checks were not run"),
        ("✓", "b", "no check failed, in 3 seeds"),
        (
            "✗", "c", "'plateau' of attacked failed in 2 of 3 seeds: the attack may not have found "
            "all that it can",
        ),
    ]  # fmt: skip


def test_no_check_is_said_to_have_passed_where_none_ran(results):
    none = {run: {str(seed): None for seed in range(3)} for run in ("sgt", "standard")}
    about = {"attacked": {"sgt": {"0": {"strongest": {}}}}}
    unchecked = replace(results, masking={"attacked": none}, about=about)
    assert checks_lines(unchecked) == ["attacked: sgt and standard: not run"]
    some = {"sgt": {"0": None, "1": [{"name": "x", "verdict": "passed"}]}}
    partly = replace(results, masking={"attacked": some})
    assert checks_lines(partly) == ["attacked: sgt (1 of 2 seeds) none failed"]


def test_what_a_verdict_must_be_read_with_stands_beside_it(results, tmp_path):
    claim = replace(
        results.claims[2], these_seeds=3, qualifications=["the attack had not converged"]
    )
    (found, *_) = shown(replace(results, claims=[claim]))
    assert found.verdict == "refuted, of these 3 models of each run"
    told = "✗ refuted, of these 3 models of each run<br>but the attack had not converged"
    assert claim_cells(found)[-1] == told
    page = write_study_report(replace(results, claims=[claim]), tmp_path, tmp_path).read_text()
    assert page.count("the attack had not converged") == 2


def test_images_that_differ_from_seed_to_seed_are_a_range():
    told = words.sizes(replace(decision("supported", 0.1, (0, 1)), images_by_seed={0: 437, 1: 447}))
    assert told == "437 to 447 images of 40 groups, 2 seeds"


def test_at_a_glance_it_is_said_of_which_models_verdicts_speak():
    claims = make_claims()
    assert words.spoken_of(claims) == "1 is qualified."
    alone = [replace(claim, these_seeds=3, qualifications=[]) for claim in claims[:2]]
    told = "2 verdicts speak of the models that were trained, and of no others."
    assert words.spoken_of(alone) == told


def test_a_card_tells_the_family_of_its_p_and_what_the_claim_presupposes(results, tmp_path):
    floor = Condition("asgt/attacked.pgd@0.2 > 0.1135", around(0.05), 0.01, 0.99, {0: 0.05})
    found = decision("refuted", -0.2, (0,), family=11, conditions=[floor])
    study = {**results.study, "figures": {}}
    claims = [replace(results.claims[2], decision=found)]
    page = write_study_report(replace(results, claims=claims, study=study), tmp_path, tmp_path)
    text = page.read_text()
    assert "p &lt; 0.001, corrected for 11 claims 0.003" in text
    assert (
        "asgt/attacked.pgd@0.2 &gt; 0.1135: difference +0.050 [+0.01, +0.09], one-sided p" in text
    )
