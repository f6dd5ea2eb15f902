"""What the checks make of decisions at a threshold, and of what is taken for what."""

from __future__ import annotations

from dataclasses import replace

from tests.audit.test_checks import SURE, results

from diascope.audit.checks import CHECKS
from diascope.audit.parts import Confusion, Operating, OperatingPoint


def point(eps, sensitivity, specificity=SURE, half=0.05, missed=5):
    around = (sensitivity, sensitivity - half, sensitivity + half)
    return OperatingPoint(eps, 100, 50, 50, around, specificity, missed, 5)


GOOD = Operating(
    ["mel"],
    "r",
    0.2,
    "40 validation images",
    [point(0.0, 0.92), point(0.5 / 255, 0.9), point(3 / 255, 0.7)],
    validation=point(0.0, 0.92),
)


def test_a_model_that_holds_its_threshold_is_no_fault():
    assert CHECKS["operating"](results(operating=GOOD)) == []
    undecided = replace(GOOD, points=[point(0.0, 0.87), *GOOD.points[1:]])
    assert CHECKS["operating"](results(operating=undecided)) == []
    nan = (float("nan"),) * 3
    empty = OperatingPoint(0.0, 0, 0, 0, nan, nan, 0, 0)
    assert CHECKS["operating"](results(operating=replace(GOOD, points=[empty, empty]))) == []


def test_a_sensitivity_below_the_wanted_one_is_found():
    bad = replace(GOOD, points=[point(0.0, 0.7, missed=15)])
    (finding,) = CHECKS["operating"](results(operating=bad))
    assert finding.severity == "high"
    assert "misses more mel" in finding.title
    assert "15 of 50" in finding.evidence
    assert finding.count == 15
    asked_less = replace(results(operating=bad), settings={"sensitivity": 0.7})
    assert CHECKS["operating"](asked_less) == []
    another_rule = replace(results(operating=bad), settings={"threshold": "youden"})
    assert CHECKS["operating"](another_rule) == []


def test_a_threshold_that_does_not_carry_over_is_found():
    alarms = (0.5, 0.45, 0.55)
    moved = replace(GOOD, points=[point(0.0, 0.95, specificity=alarms)])
    (finding,) = CHECKS["operating"](results(operating=moved))
    assert "more false alarms" in finding.title
    assert CHECKS["operating"](results(operating=replace(moved, validation=None))) == []


def test_a_faint_attack_that_hides_disease_is_found():
    hidden = replace(GOOD, points=[GOOD.points[0], point(0.5 / 255, 0.2, missed=40)])
    (finding,) = CHECKS["operating"](results(operating=hidden))
    assert finding.severity == "high"
    assert "mostly misses" in finding.evidence
    assert "40 of 50 missed" in finding.evidence
    both = point(3 / 255, 0.2, specificity=(0.2, 0.1, 0.3), missed=40)
    (finding,) = CHECKS["operating"](
        results(operating=replace(GOOD, points=[GOOD.points[0], both]))
    )
    assert finding.severity == "medium"
    assert "both ways alike" in finding.evidence
    seen = point(0.1, 0.2, missed=40)  # a change that everybody sees
    assert (
        CHECKS["operating"](results(operating=replace(GOOD, points=[GOOD.points[0], seen]))) == []
    )


RECALL = {"mel": (0.2, 0.1, 0.3), "nv": SURE}


def test_a_swallowed_class_is_graver_where_disease_is_hidden():
    cells = [Confusion(0.0, [[10, 40], [5, 45]])]
    (finding,) = CHECKS["errors"](results(recall=RECALL, confusion=cells, operating=GOOD))
    assert finding.severity == "high"
    assert "calls most of mel nv" in finding.title
    (finding,) = CHECKS["errors"](results(recall=RECALL, confusion=cells))
    assert finding.severity == "medium"
    wide = {**RECALL, "mel": (0.4, 0.2, 0.6)}
    assert CHECKS["errors"](results(recall=wide, confusion=cells)) == []
    spread_out = [Confusion(0.0, [[10, 20, 20], [5, 45, 0], [0, 5, 45]])]
    three = {**RECALL, "bkl": SURE}
    assert CHECKS["errors"](results(recall=three, confusion=spread_out)) == []


def test_an_attack_that_leads_to_one_answer_is_found():
    def found(cells, recall=RECALL, **changes):
        return CHECKS["errors"](
            results(recall=recall, confusion=[Confusion(0.01, cells)], **changes)
        )

    (finding,) = found([[5, 45], [3, 47]], operating=GOOD)
    assert (finding.severity, finding.count) == ("medium", 45)
    assert "into nv" in finding.title
    (finding,) = found([[47, 3], [45, 5]], operating=GOOD)
    assert finding.severity == "low"  # into what is positive: alarms, not misses
    assert found([[10, 40], [38, 12]]) == []  # both ways
    assert found([[50, 0], [45, 5]][::-1]) != []
    assert found([[10, 90], [4, 16]]) != []
    assert found([[60, 40], [12, 18]]) == []  # more images, the same rate
    assert found([[45, 5], [0, 50]]) == []  # five errors say nothing
    assert found([[60, 40], [0, 2]]) == []  # what two images are called says nothing either
    assert found([[0, 2], [40, 60]]) == []
    three = {**RECALL, "bkl": SURE}
    assert found([[10, 20, 20], [20, 10, 20], [20, 20, 10]], three) == []
    (finding,) = found([[10, 38, 2], [2, 46, 2], [2, 38, 10]], three)
    assert "76 of 100" in finding.evidence
