"""What a claim presupposes, and what may be known before anything is measured."""

from __future__ import annotations

import numpy as np
import pytest
from tests.studies.claim_tables import GREATER, LONE, around, decided, study, table, values

from diascope.errors import UserError
from diascope.studies.decide import decide_study, read_claims
from diascope.studies.stated import undecidable


def test_how_many_images_there_are_is_known_of_a_test_that_takes_them_all():
    frames = values(around(0.51), around(0.5, 2))
    tables = {"e": {run: {0: frame.iloc[:30]} for run, frame in frames.items()}}
    tables["f"] = {"a": {0: frames["a"]}}
    made = study({"c": GREATER}, evaluations={"e": "t", "f": "t"})
    assert decide_study(made, tables)[0].decision.available_images == 40
    tests = {"t": made.tests["t"].model_copy(update={"images": 30})}
    some = made.model_copy(update={"tests": tests})
    assert decide_study(some, tables)[0].decision.available_images is None


ALIVE = {"name": "equal", "a": "a/e.v", "b": "b/e.v", "within": 0.1}


@pytest.mark.parametrize(
    ("test", "means", "verdict"),
    [
        (ALIVE, (0.6, 0.6), "supported"),
        (ALIVE, (0.1, 0.1), "refuted"),  # equal at a floor
        (ALIVE, (0.6, 0.31), "refuted"),
        (ALIVE, (0.31, 0.31), "undecided"),
        (GREATER, (0.6, 0.4), "supported"),
        (GREATER, (0.2, 0.1), "refuted"),
        (GREATER, (0.4, 0.6), "refuted"),
        (GREATER, (0.305, 0.1), "undecided"),
        (
            {"name": "peak", "quantities": ["a/e.v", "b/e.v"], "inside": [1]},
            (0.5, 0.1),
            "supported",
        ),
        ({"name": "peak", "quantities": ["a/e.v", "b/e.v"], "inside": [1]}, (0.2, 0.1), "refuted"),
    ],
    ids=str,
)
def test_a_claim_holds_only_above_what_it_presupposes(test, means, verdict):
    frames = values(*(around(mean, turn) for turn, mean in enumerate(means)))
    made = study({"c": test})
    above = {"a/e.v": 0.3, "b/e.v": 0.3} if test is ALIVE else {"a/e.v": 0.3}
    spec = made.claims["c"].model_copy(update={"above": above})
    tables = {"e": {run: {0: frame} for run, frame in frames.items()}}
    [result] = decide_study(made.model_copy(update={"claims": {"c": spec}}), tables)
    assert result.verdict == verdict
    assert result.statement.endswith(", and ".join(["", *(f"{q} > 0.3" for q in above)]))
    first = result.decision.conditions[0]
    assert first.name == "a/e.v > 0.3"
    assert first.difference.value == pytest.approx(means[0] - 0.3)
    if means[0] < 0.3:
        assert "its condition a/e.v > 0.3 does not hold (by -0." in result.reason
    elif verdict == "undecided":
        assert "its condition a/e.v > 0.3 is not shown (by 0.0" in result.reason
    else:
        assert result.reason == ""


def test_conditions_are_read_on_the_strongest_attack_too():
    frames = {run: table(LONE) for run in "ab"}
    for run, fgsm, strongest in (("a", 35, 2), ("b", 35, 2)):
        frames[run]["fgsm@1"], frames[run]["strongest@1"] = fgsm > LONE, strongest > LONE
    test = {"name": "equal", "a": "a/e.fgsm@1", "b": "b/e.fgsm@1", "within": 0.4}
    made = study({"c": test})
    spec = made.claims["c"].model_copy(update={"above": {"a/e.fgsm@1": 0.3}})
    tables = {"e": {run: {0: frame * 1} for run, frame in frames.items()}}
    plain = decide_study(made, tables)[0]
    alive = decide_study(made.model_copy(update={"claims": {"c": spec}}), tables)[0]
    assert plain.verdict == "supported"
    assert (alive.decision.verdict, alive.strongest.verdict) == ("supported", "refuted")
    assert alive.verdict == "under a weak attack"
    assert "its condition a/e.strongest@1 > 0.3 does not hold" in alive.reason


def test_margins_that_no_images_could_show_are_told_before():
    equal = {"name": "equal", "a": "a/e.correct", "b": "b/e.correct", "within": 0.02}
    margin = {"name": "at_least", "a": "a/e.pgd@1", "b": "b/e.pgd@1", "by": -0.02}
    claims = {"equal": equal, "margin": margin, "wide": {**equal, "within": 0.03},
              "more": {**margin, "by": 0.02}, "maps": {**equal, "a": "a/e.v"}}  # fmt: skip
    made = study(claims)

    def of(images):
        tests = {"t": made.tests["t"].model_copy(update={"images": images})}
        return undecidable(made.model_copy(update={"tests": tests}))

    first, second = of(160)
    assert first == (
        "claim equal: a difference of less than 0.02 cannot be shown on 160 images: even where all "
        "agree it may be 0.023; it takes 183 images at least"
    )
    assert second.startswith("claim margin")
    assert (of(183), of(None)) == ([], [])
    assert len(of(182)) == 2
    attacked = made.evaluations["e"].model_copy(
        update={"measure": {"name": "robust", "strongest_images": 80}}
    )
    [few] = undecidable(made.model_copy(update={"evaluations": {"e": attacked}}))
    assert few.startswith("claim margin: a difference of less than 0.02 cannot be shown on 80")
    for n, verdict in ((182, "undecided"), (183, "supported")):  # what is told is what happens
        frames = {run: table(np.arange(n)) for run in "ab"}
        assert decided(equal, frames).verdict == verdict


def test_a_condition_that_leads_nowhere_is_the_users_mistake():
    for above, said in (
        ({"c/e.correct": 0.5}, "claims.c.above: 'c/e.correct': no run 'c'"),
        ({"a/e.corect": 0.5}, "did you mean 'correct'?"),
        ({"a/e.correct": "half"}, "claims.c.above: 'half': write RUN/EVALUATION.COLUMN"),
    ):
        made = study({"c": {**GREATER, "a": "a/e.loss", "b": "b/e.loss"}})
        spec = made.claims["c"].model_copy(update={"above": above})
        with pytest.raises(UserError) as caught:
            read_claims(made.model_copy(update={"claims": {"c": spec}}), "s.yaml")
        assert said in str(caught.value)
