from __future__ import annotations

import numpy as np
import pytest
from tests.studies.claim_tables import decided, table

from diascope.studies.masked import checked, failed_checks, on_strongest, under_attack
from diascope.studies.quantities import Atom

N = 100
TEST = {"name": "greater", "a": "a/e.fgsm@0.25", "b": "b/e.fgsm@0.25"}


def first(count, images=N):
    """Withstood by the first `count` images; of those beyond `images` nothing is known."""
    return np.where(np.arange(N) < images, (np.arange(N) < count) * 1.0, np.nan)


def run(fgsm, strongest, images=N, seeds=1):
    frame = table(np.arange(N))
    frame["fgsm@0.25"], frame["strongest@0.25"] = first(fgsm), first(strongest, images)
    return [frame] * seeds


def checks(**verdicts):
    return [{"name": n, "verdict": v, "evidence": f"{n} says so"} for n, v in verdicts.items()]


def masking(run, *by_seed):
    return {"e": {run: {str(s): each for s, each in enumerate(by_seed)}}}


def test_what_holds_on_the_strongest_attack_too_is_supported():
    result = decided(TEST, {"a": run(80, 60), "b": run(40, 30)})
    assert (result.verdict, result.reason) == ("supported", "")
    assert result.decision.effect.value == pytest.approx(0.4)
    assert result.strongest.effect.value == pytest.approx(0.3)
    assert result.strongest.quantities[0].name == "a/e.strongest@0.25"


def test_what_the_strongest_attack_takes_away_holds_under_a_weak_attack():
    result = decided(TEST, {"a": run(80, 10), "b": run(40, 9)})
    assert result.verdict == "under a weak attack"
    assert result.decision.verdict == "supported"
    assert result.strongest.verdict == "undecided"
    assert "supported on fgsm@0.25 (0.400 [" in result.reason
    assert "undecided on the strongest attack (0.010 [" in result.reason
    masked = decided(
        TEST, {"a": run(80, 10), "b": run(40, 9)}, masking("a", checks(noise="failed"))
    )
    assert masked.verdict == "under a masked gradient"
    result = decided(TEST, {"a": run(80, 0), "b": run(40, 30)})
    assert result.verdict == "under a weak attack"
    assert "refuted on the strongest attack (-0.300 [" in result.reason


def test_too_few_images_under_the_strongest_attack_accuse_nobody():
    few = decided(TEST, {"a": run(80, 5, images=8), "b": run(70, 3, images=8)})
    assert (few.decision.verdict, few.strongest.verdict) == ("supported", "undecided")
    assert few.verdict == "undecided"
    assert "8 images" in few.reason
    assert "too few images" in few.reason
    assert few.strongest.needed_images > 8
    none = decided(TEST, {"a": run(80, 5, images=0), "b": run(40, 3)})
    assert (none.verdict, none.strongest) == ("supported", None)
    assert "not decided on the strongest attack" in none.reason


def test_a_favoured_run_whose_gradients_are_masked_is_named_with_the_check():
    frames = {"a": run(80, 60), "b": run(40, 30)}
    found = decided(TEST, frames, masking("a", checks(black_box="failed", noise="passed")))
    assert found.verdict == "under a masked gradient"
    assert found.decision.verdict == found.strongest.verdict == "supported"
    told = "check 'black_box' of e failed (seed 0): black_box says so"
    assert found.masked == {"a": [told]}
    assert found.reason == f"supported in favour of a, whose gradients are masked: {told}"


@pytest.mark.parametrize(
    "given",
    [
        masking("b", checks(black_box="failed")),  # its rival's figure is too good, if anything
        masking("a", checks(reported="failed", noise="undecided")),
        masking("a", checks(plateau="failed", losses="failed", returned="failed")),
        masking("a", None),
        {},
    ],
)
def test_checks_that_do_not_doubt_the_favoured_run_change_nothing(given):
    result = decided(TEST, {"a": run(80, 60), "b": run(40, 30)}, given)
    assert (result.verdict, result.reason) == ("supported", "")
    assert set(result.masked) <= {"b"}


def test_a_check_that_fails_in_few_seeds_is_shown_and_decides_nothing():
    frames = {"a": run(80, 60, seeds=3), "b": run(40, 30, seeds=3)}
    good, bad = checks(noise="passed"), checks(noise="failed")
    once = decided(TEST, frames, masking("a", good, bad, good))
    assert once.verdict == "supported"
    assert once.masked == {"a": ["check 'noise' of e failed (seed 1): noise says so"]}
    twice = decided(TEST, frames, masking("a", bad, bad, good))
    assert twice.verdict == "under a masked gradient"
    assert "(seeds 0, 1)" in twice.reason


def test_a_refutation_is_doubted_as_a_support_is():
    frames = {"a": run(40, 30), "b": run(80, 60)}
    result = decided(TEST, frames, masking("b", checks(iterative="failed")))
    assert result.verdict == "refuted under a masked gradient"
    assert "in favour of b, whose gradients are masked" in result.reason
    assert decided(TEST, frames, masking("a", checks(iterative="failed"))).verdict == "refuted"
    result = decided(TEST, {"a": run(40, 40), "b": run(80, 0)})
    assert result.verdict == "refuted under a weak attack"
    assert "supported on the strongest attack" in result.reason
    few = decided(TEST, {"a": run(70, 3, images=8), "b": run(80, 5, images=8)})
    assert (few.decision.verdict, few.verdict) == ("refuted", "undecided")
    assert "too few images" in few.reason


MIRRORED = {
    "supported": "refuted",
    "under a weak attack": "refuted under a weak attack",
    "under a masked gradient": "refuted under a masked gradient",
    "undecided": "undecided",
}
MIRRORED |= {there: here for here, there in MIRRORED.items()}


@pytest.mark.parametrize("doubt", [{}, {"noise": "failed"}, {"plateau": "failed"}], ids=str)
@pytest.mark.parametrize(
    "counts",
    [((80, 60), (40, 30)), ((80, 10), (40, 9)), ((80, 0), (40, 30)), ((70, 65), (69, 20))],
    ids=str,
)
@pytest.mark.parametrize("images", [N, 8])
def test_a_claim_and_its_mirror_come_to_mirrored_verdicts(counts, images, doubt):
    frames = {name: run(*each, images=images) for name, each in zip("ab", counts, strict=True)}
    swapped = {**TEST, "a": TEST["b"], "b": TEST["a"]}
    for accused in "ab":
        found = masking(accused, checks(**doubt))
        one, other = (decided(test, frames, found) for test in (TEST, swapped))
        assert other.verdict == MIRRORED[one.verdict]
        assert other.qualifications == one.qualifications
        assert other.failed == one.failed
        assert other.decision.p_corrected == one.decision.p_corrected


@pytest.mark.parametrize("name", ["plateau", "losses", "returned"])
def test_an_attack_that_had_not_finished_qualifies_what_rests_on_it(name):
    frames = {"a": run(80, 60, seeds=3), "b": run(40, 30, seeds=3)}
    bad, good = checks(**{name: "failed"}), checks(**{name: "passed"})
    found = decided(TEST, frames, masking("a", bad, bad, good))
    assert found.verdict == "supported"
    [said] = found.qualifications
    assert f"the attack on a had not found all that it can (check '{name}' of e failed in 2" in said
    assert "2 of 3 seeds" in said
    [failed] = found.failed
    assert (failed.name, failed.seeds, failed.checked) == (name, [0, 1], 3)
    assert (failed.accuses, failed.favoured) == ("attack", True)
    assert decided(TEST, frames, masking("a", bad, good, good)).qualifications == []
    assert decided(TEST, frames, masking("b", bad, bad, bad)).qualifications == []
    open_ = {"a": run(80, 60), "b": run(80, 60)}
    assert decided(TEST, open_, masking("a", bad)).qualifications == []


def test_whether_the_checks_ran_is_told():
    frames = {"a": run(80, 60, seeds=2), "b": run(40, 30, seeds=2)}
    assert decided(TEST, frames).checked == {"a": 0, "b": 0}
    found = decided(TEST, frames, masking("a", checks(noise="passed"), None))
    assert found.checked == {"a": 1, "b": 0}
    plain = {"name": "greater", "a": "a/e.correct", "b": 0.5}
    assert decided(plain, {"a": run(80, 60)}).checked == {}


def test_both_sides_of_an_equality_must_be_free_of_doubt():
    test = {"name": "equal", "a": TEST["a"], "b": TEST["b"], "within": 0.2}
    frames = {"a": run(80, 60), "b": run(80, 60)}
    assert decided(test, frames).verdict == "supported"
    for name in "ab":
        result = decided(test, frames, masking(name, checks(noise="failed")))
        assert result.verdict == "under a masked gradient"


def test_claims_on_the_strongest_attack_are_decided_once_and_still_doubted():
    test = {"name": "greater", "a": "a/e.strongest@0.25", "b": "b/e.strongest@0.25"}
    frames = {"a": run(80, 60), "b": run(40, 30)}
    assert decided(test, frames).strongest is None
    found = decided(test, frames, masking("a", checks(noise="failed")))
    assert found.verdict == "under a masked gradient"


def test_only_columns_of_withstanding_are_read_on_the_strongest_attack():
    frame = run(80, 60)[0].assign(**{"moved@0.25": 0.3, "pgd@0.5": 1.0, "g.hit@0.25": 1.0})
    tables = {"e": {"a": {0: frame}}}
    assert on_strongest(Atom("a", "e", "fgsm@0.25"), tables).column == "strongest@0.25"
    balanced = Atom("a", "e", "fgsm@0.25", "balanced", "all_correct")
    mapped = on_strongest(balanced, tables)
    assert (mapped.statistic, mapped.where) == ("balanced", "all_correct")
    for column in ("moved@0.25", "pgd@0.5", "g.hit@0.25", "correct"):
        atom = Atom("a", "e", column)
        assert not under_attack(atom, tables)
        assert on_strongest(atom, tables) == atom
    other = masking("b", checks(noise="failed"))
    assert failed_checks([("e", "a")], [0], other) == []
    assert checked([("e", "a"), ("e", "b")], [0, 1], other) == {"a": 0, "b": 1}
