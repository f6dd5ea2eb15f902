from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.studies.claim_tables import (
    GREATER,
    LONE,
    around,
    decided,
    study,
    table,
    values,
)

from diascope.errors import UserError
from diascope.evaluation.scores import auroc
from diascope.studies.decide import decide_study, read_claims
from diascope.studies.study import Untestable

RNG = np.random.default_rng(0)
RNG = np.random.default_rng(0)
FLIPPED = {"supported": "refuted", "refuted": "supported", "undecided": "undecided"}


@pytest.mark.parametrize(
    ("test", "means", "verdict"),
    [
        (GREATER, (0.5, 0.3), "supported"),
        (GREATER, (0.3, 0.5), "refuted"),
        (GREATER, (0.5, 0.49), "undecided"),
        ({**GREATER, "margin": 0.3}, (0.5, 0.3), "refuted"),
        ({"name": "at_least", "a": "a/e.v", "b": "b/e.v", "by": 0.1}, (0.5, 0.3), "supported"),
        ({"name": "at_least", "a": "a/e.v", "b": "b/e.v", "by": 0.19}, (0.5, 0.3), "undecided"),
        ({"name": "at_least", "a": "a/e.v", "b": 0.1, "by": 0.6}, (0.5,), "refuted"),
        ({"name": "equal", "a": "a/e.v", "b": "b/e.v", "within": 0.1}, (0.5, 0.5), "supported"),
        ({"name": "equal", "a": "a/e.v", "b": "b/e.v", "within": 0.01}, (0.5, 0.5), "undecided"),
        ({"name": "equal", "a": "a/e.v", "b": "b/e.v", "within": 0.1}, (0.5, 0.9), "refuted"),
        ({"name": "monotone", "quantities": ["a/e.v", "b/e.v", "c/e.v"]}, (1, 2, 3), "supported"),
        ({"name": "monotone", "quantities": ["a/e.v", "b/e.v", "c/e.v"]}, (1, 3, 2), "refuted"),
        ({"name": "monotone", "quantities": ["a/e.v", "b/e.v", "c/e.v"]}, (1, 2, 2), "undecided"),
        (
            {"name": "monotone", "quantities": ["a/e.v", "b/e.v"], "direction": "falling"},
            (1, 2),
            "refuted",
        ),
        (
            {"name": "peak", "quantities": ["a/e.v", "b/e.v", "c/e.v"], "inside": [2]},
            (1, 3, 2),
            "supported",
        ),
        (
            {"name": "peak", "quantities": ["a/e.v", "b/e.v", "c/e.v"], "inside": [1, 2]},
            (1, 2, 3),
            "refuted",
        ),
        (
            {"name": "peak", "quantities": ["a/e.v", "b/e.v", "c/e.v"], "inside": [2, 3]},
            (3, 3, 1),
            "undecided",
        ),
    ],
    ids=str,
)
def test_verdicts_that_are_known_by_hand(test, means, verdict):
    frames = values(*(around(mean, turn) for turn, mean in enumerate(means)))
    result = decided(test, frames)
    assert result.verdict == verdict
    decision = result.decision
    assert decision is not None
    assert (decision.p_corrected < 0.05) == (verdict != "undecided")
    assert decision.effect.low < decision.effect.value < decision.effect.high
    assert [q.bounds.value for q in decision.quantities[: len(means)]] == pytest.approx(means)
    assert (decision.images, decision.groups) == (40, 40)
    if verdict != "undecided":
        assert decision.needed_images is None


def test_an_undecided_claim_names_the_images_that_would_decide_it():
    result = decided(GREATER, values(around(0.51), around(0.5, 2)))
    difference = around(0.51) - around(0.5, 2)
    expected = (2.8 / (0.01 / difference.std(ddof=1))) ** 2
    assert result.decision.needed_images == pytest.approx(expected, rel=0.15)
    assert result.decision.needed_seeds is None
    nothing = decided(GREATER, values(around(0.5), around(0.5)))
    assert nothing.decision.needed_images is None
    assert nothing.decision.p == 1.0


@pytest.mark.parametrize(("n", "verdict", "needed"), [(4, "undecided", 6), (6, "supported", None)])
def test_unanimous_images_are_no_certainty(n, verdict, needed):
    lone = np.arange(n)
    result = decided(GREATER, values(np.ones(n), np.zeros(n), groups=lone))
    decision = result.decision
    assert decision.p == pytest.approx(2 * 0.5**n)  # the sign test
    assert (result.verdict, decision.needed_images) == (verdict, needed)
    slack = 1 - 0.025 ** (1 / n)
    assert decision.effect.low == pytest.approx(1 - 2 * slack)
    assert decision.effect.high == 1.0
    a, b = (q.bounds for q in decision.quantities)
    assert (a.low, a.high) == (pytest.approx(1 - slack), 1)
    assert (b.low, b.high) == (0, pytest.approx(slack))


def test_unanimous_values_of_unknown_range_decide_nothing():
    result = decided(GREATER, values(np.full(40, 0.7), np.full(40, 0.2)))
    assert result.verdict == "undecided"
    assert result.decision.effect.value == pytest.approx(0.5)
    assert result.decision.effect.low is None
    assert result.decision.needed_images is None


def test_equal_to_the_last_image_is_equal_only_within_what_many_images_allow():
    test = {"name": "equal", "a": "a/e.v", "b": "b/e.v", "within": 0.05}
    for n, verdict in ((60, "undecided"), (200, "supported")):
        same = np.arange(n) % 3 == 0
        result = decided(test, values(same, same, groups=np.arange(n)))
        assert result.verdict == verdict
        assert result.decision.p == pytest.approx(2 * 0.95**n, rel=0.02)


def test_one_group_decides_nothing():
    result = decided(GREATER, values(around(1.0), around(0.0), groups=np.zeros(40)))
    assert (result.verdict, result.decision.p, result.decision.effect.low) == ("undecided", 1, None)


numbers = st.lists(st.floats(-5, 5, width=16), min_size=6, max_size=12)


@settings(max_examples=8)
@given(numbers, numbers, st.integers(0, 2**16))
def test_symmetries(first, second, seed):
    n = min(len(first), len(second))
    rng = np.random.default_rng(seed)
    groups = rng.integers(0, max(2, n - 2), n)
    a, b = np.array(first[:n]), np.array(second[:n]) + 3
    frames = values(a, b, groups=groups)
    one = decided(GREATER, frames, replicates=100)
    swapped = decided({"name": "greater", "a": "b/e.v", "b": "a/e.v"}, frames, replicates=100)
    assert swapped.verdict == FLIPPED[one.verdict]
    assert swapped.decision.effect.value == pytest.approx(-one.decision.effect.value)
    assert swapped.decision.p == pytest.approx(one.decision.p)
    order = rng.permutation(n)
    mixed = {**frames, "a": frames["a"].iloc[order]}
    shuffled = decided(GREATER, mixed, replicates=100)
    assert shuffled.decision == one.decision
    shifted = decided(GREATER, values(a + 2, b + 2, groups=groups), replicates=100)
    assert shifted.verdict == one.verdict
    for limit in ("value", "low", "high"):
        before, after = (getattr(r.decision.effect, limit) for r in (one, shifted))
        assert before is after is None or after == pytest.approx(before, abs=1e-9)


def test_groups_of_like_images_widen_the_interval():
    clustered = np.repeat(np.arange(10), 4)
    alike = np.repeat(RNG.normal(0, 1, 10), 4)
    frames = values(alike, np.zeros(40)), values(alike, np.zeros(40), groups=clustered)
    lone, grouped = (decided(GREATER, each).decision for each in frames)
    ratio = (grouped.effect.high - grouped.effect.low) / (lone.effect.high - lone.effect.low)
    assert ratio == pytest.approx(2.2, abs=0.3)  # sqrt(4), and Student's t of 9 instead of 39
    assert (grouped.images, grouped.groups) == (40, 10)


def test_runs_are_paired_on_a_test_and_tests_are_drawn_apart():
    hard = RNG.normal(0, 1, 40)  # images differ much more than runs
    tables = {
        "e": {"a": {0: table(LONE, v=hard + around(0.2))}, "b": {0: table(LONE, v=hard)}},
        "f": {"b": {0: table(LONE, v=hard)}},
    }
    apart = {"name": "greater", "a": "a/e.v", "b": "b/f.v"}
    for on, width in (({"e": "t", "f": "t"}, 0.07), ({"e": "t", "f": "u"}, 0.9)):
        made = study({"c": apart}, evaluations=on)
        [found] = decide_study(made, tables)
        effect = found.decision.effect
        assert effect.high - effect.low == pytest.approx(width, rel=0.3)
        assert found.decision.images == 40 * len(set(on.values()))


def test_fewer_than_five_seeds_are_shown_and_say_nothing_of_new_ones():
    step = [0.1, 0.2, 0.3, 0.4, 0.5]
    of = {n: [table(LONE, v=around(step[s])) for s in range(n)] for n in (4, 5)}
    test = {"name": "greater", "a": "a/e.v", "b": 0}
    four, five = (decided(test, {"a": of[n]}, replicates=4000).decision for n in (4, 5))
    assert four.by_seed == pytest.approx(dict(enumerate(step[:4])))
    assert four.effect.high - four.effect.low == pytest.approx(2 * 2.02 * 0.1 / 40**0.5, rel=0.15)
    # of five seeds: 0.3 with a standard error of sqrt(0.025 / 5), and little from the images
    half = (five.effect.high - five.effect.low) / 2
    assert half == pytest.approx(2.776 * (0.025 / 5) ** 0.5, rel=0.12)


def test_seeds_would_decide_where_images_cannot():
    of = [table(LONE, v=around(step)) for step in (-0.3, -0.1, 0.1, 0.3, 0.5)]
    result = decided({"name": "greater", "a": "a/e.v", "b": 0}, {"a": of}, replicates=2000)
    assert result.verdict == "undecided"
    assert result.decision.needed_images is None
    expected = 0.1 / ((0.1 / 2.8) ** 2 - 0.1**2 / 40)  # what the images leave of the error
    assert result.decision.needed_seeds == pytest.approx(expected, rel=0.08)


def test_holm_counts_the_claims_of_the_study():
    frames = values(around(0.56), around(0.5, 2))
    alone = decided(GREATER, frames, replicates=2000)
    assert alone.verdict == "supported"
    idle = {"name": "greater", "a": "b/e.v", "b": "a/e.v"}
    claims = {"c": GREATER} | {f"x{i}": {**idle, "margin": 9 + i} for i in range(3)}
    claims["missing"] = {**GREATER, "a": "a/e.gone"}
    tables = {"e": {run: {0: f} for run, f in frames.items()}}
    results = decide_study(study(claims), tables, replicates=2000)
    among = results[0].decision
    assert among.p == alone.decision.p
    assert among.p_corrected == among.p  # the last of four; the one not run does not count
    harder = {"c": GREATER} | {f"x{i}": {**GREATER, "margin": 0.059 + i / 1000} for i in range(3)}
    among = decide_study(study(harder), tables, replicates=2000)[0]
    assert among.decision.p_corrected == pytest.approx(4 * alone.decision.p)


def test_images_are_paired_by_id_and_the_count_is_said():
    a, b = table(LONE, v=around(0.5)), table(LONE, v=around(0.3, 2))
    result = decided(GREATER, {"a": a.iloc[:30], "b": b.iloc[::-1].iloc[:25]})
    both = slice(15, 30)
    assert result.decision.effect.value == pytest.approx((a.v - b.v)[both].mean())
    assert (result.decision.images, result.decision.groups) == (15, 15)
    assert result.reason == "on the 15 images of t that every table has (of 30)"


def test_undefined_images_are_left_out_in_pairs():
    a, b = around(0.5), around(0.3, 2)
    a[:5], b[3:9] = np.nan, np.nan
    decision = decided(GREATER, values(a, b)).decision
    assert decision.effect.value == pytest.approx((a - b)[9:].mean())
    assert [q.bounds.value for q in decision.quantities] == pytest.approx(
        [a[9:].mean(), b[9:].mean()]
    )
    assert decision.quantities[0].images == decision.images == 31
    result = decided(GREATER, values(a, np.full(40, np.nan)))
    assert (result.verdict, result.decision) == ("undecided", None)
    assert "no image with a value" in result.reason
    result = decided(GREATER, values(np.where(a > 0.5, np.inf, 0.1), b))
    assert result.verdict == "undecided"
    assert "infinite" in result.reason


def test_all_correct_keeps_what_every_run_of_the_claim_classifies_correctly():
    frames = values(around(0.5), around(0.3, 2))
    frames["a"]["correct"] = LONE % 2 == 0
    frames["b"]["correct"] = LONE % 3 == 0
    test = {"name": "greater", "a": "a/e.v where all_correct", "b": "b/e.v"}
    decision = decided(test, frames).decision
    assert decision.quantities[0].bounds.value == pytest.approx(frames["a"].v[::6].mean())
    assert decision.quantities[1].bounds.value == pytest.approx(0.3)
    assert [q.images for q in decision.quantities] == [7, 40]
    assert decision.images == 40  # of the second, which has no condition


def test_the_images_of_a_condition_are_counted_in_each_seed():
    def run(*rights):
        frames = [table(LONE // 2, v=around(0.5, k)) for k in range(len(rights))]
        for frame, right in zip(frames, rights, strict=True):
            frame["correct"] = right > LONE
        return frames

    both = {"name": "greater", "a": "a/e.v where all_correct", "b": "b/e.v where all_correct"}
    decision = decided(both, {"a": run(30, 12), "b": run(20, 40)}).decision
    assert decision.images_by_seed == {0: 20, 1: 12}
    assert (decision.images, decision.groups) == (20, 10)
    assert [q.images_by_seed for q in decision.quantities] == [{0: 20, 1: 12}] * 2
    assert decision.available_images == 40


def test_statistics_over_classes_are_those_of_the_scores():
    label = np.where(RNG.random(40) < 0.3, "ill", "well")
    score = np.where(label == "ill", 0.2, 0.0) + RNG.random(40)
    hit = np.where(label == "ill", RNG.random(40) < 0.5, RNG.random(40) < 0.9)
    frame = table(LONE, label=label, prob_ill=score, prob_well=1 - score, correct=hit)
    test = {"name": "greater", "a": "auroc:a/e", "b": "balanced:a/e"}
    decision = decided(test, {"a": frame}).decision
    area, balanced = decision.quantities
    assert area.bounds.value == pytest.approx(auroc(score, label == "ill")[0])
    assert 0 < area.bounds.low < area.bounds.value < area.bounds.high <= 1
    shares = [hit[label == each].mean() for each in ("ill", "well")]
    assert balanced.bounds.value == pytest.approx(np.mean(shares))
    alone = decided(test, {"a": frame[frame.label == "ill"]})
    assert "a class has no image" in alone.reason
    strange = decided(test, {"a": frame.rename(columns={"prob_ill": "prob_odd"})})
    assert strange.verdict == "not run"
    assert "'ill'" in strange.reason


@pytest.mark.parametrize("classes", [2, 10])
def test_a_mean_over_many_classes_moves_by_a_share_of_one_of_them_no_more(classes):
    """All right: what may still be wrong of n images a class counts a K-th in the mean of K."""
    label = np.repeat([f"c{k}" for k in range(classes)], 15)
    sure = {f"prob_c{k}": np.where(label == f"c{k}", 0.9, 0.1) for k in range(classes)}
    frame = table(np.arange(len(label)), label=label, correct=np.ones(len(label), bool), **sure)
    worst = 1 - 0.025 ** (1 / 15)  # of one class
    for name, counting in (("balanced", classes), ("auroc", classes / 2)):
        test = {"name": "greater", "a": f"{name}:a/e", "b": f"{name}:b/e"}
        found = decided(test, {"a": frame, "b": frame}).decision.quantities[0].bounds
        assert found.value == 1.0
        assert 1 - found.low == pytest.approx(1 - 0.025 ** (1 / (15 * counting)))
        assert worst / counting <= 1 - found.low + 1e-12


def test_claims_whose_tables_are_missing_are_not_run_and_say_why():
    frames = {"a": [table(LONE, v=around(0.5))] * 2, "b": [table(LONE, v=around(0.3, 2))] * 2}
    tables = {"e": {run: dict(enumerate(of)) for run, of in frames.items()}}
    made = study({"c": GREATER}, seeds=3)
    [some] = decide_study(made, tables)
    assert some.verdict == "supported"
    assert some.reason == "without seed 2 (b/e is not there)"
    [none] = decide_study(made, {"e": {"a": tables["e"]["a"]}})
    assert (none.verdict, none.reason) == ("not run", "there is no table of b/e")
    assert none.decision is None
    split = {"e": {"a": {0: frames["a"][0]}, "b": {1: frames["b"][0]}}}
    [none] = decide_study(made, split)
    assert none.reason.startswith("no seed has every table: seed 0 (b/e is not there)")
    for column, said in (("w", "did you mean 'v'?"), ("label", "does not hold numbers")):
        [none] = decide_study(study({"c": {**GREATER, "a": f"a/e.{column}"}}), tables)
        assert none.verdict == "not run"
        assert said in none.reason or "known:" in none.reason
    twice = pd.concat([frames["a"][0]] * 2)
    [none] = decide_study(made, {"e": {"a": {0: twice}, "b": {0: frames["b"][0]}}})
    assert "an image twice" in none.reason


def test_what_cannot_be_tested_here_is_said_so():
    reason = "there are no such images"
    made = study({}, untestable={"P2.c": Untestable(says="they meet", reason=reason, where="5")})
    [result] = decide_study(made, {})
    assert (result.name, result.verdict, result.reason) == ("P2.c", "not testable here", reason)


def test_claims_are_read_with_the_mistakes_that_they_have():
    read = read_claims(study({"c": {**GREATER, "a": "a/e.loss", "b": "b/e.correct"}}))
    assert [str(atom) for atom in read["c"].atoms] == ["a/e.loss", "b/e.correct"]
    for test, said in (
        ({"name": "greater", "a": 1, "b": 2}, "only numbers"),
        ({"name": "greater", "a": "c/e.v", "b": 2}, "no run 'c'"),
        ({"name": "greater", "a": "a/e.losss", "b": 2}, "did you mean 'loss'?"),
        ({"name": "grater", "a": 1, "b": 2}, "did you mean 'greater'?"),
    ):
        with pytest.raises(UserError, match="claims.c.test|unknown claim") as caught:
            read_claims(study({"c": test}), "s.yaml")
        assert said in str(caught.value)
