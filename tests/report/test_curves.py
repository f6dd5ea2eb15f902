from __future__ import annotations

import itertools
import math
import re
from dataclasses import replace
from xml.etree import ElementTree

import pytest
from tests.report.factory import around, make_results

from diascope.report.attackcharts import attack_charts, attack_table
from diascope.report.charts import Sign, Strip, glyph, strip
from diascope.report.curves import nice_ticks, robustness_chart, short, uses_root


def drawn(results, wide=True):
    return ElementTree.fromstring(robustness_chart(results, wide))


def texts(tree):
    return [t.text for t in tree.iter("text")]


@pytest.mark.parametrize("wide", [True, False])
def test_the_figure_has_a_title_a_description_and_a_line_a_model(wide):
    tree = drawn(make_results(), wide)
    assert tree.find("title").text == "Accuracy under attack"
    assert "standard: 0.880 at eps 0" in tree.find("desc").text
    lines = [p for p in tree.iter("path") if p.get("class") == "line"]
    assert len(lines) == 2
    assert len({p.get("stroke-dasharray") for p in lines}) == 2  # told apart without colour
    assert len([p for p in tree.iter("path") if p.get("class") == "reference"]) == 2


def test_a_lower_accuracy_is_lower_on_the_page_and_a_larger_eps_further_right():
    tree = drawn(make_results(models=("one",)))
    line = next(p for p in tree.iter("path") if p.get("class") == "line")
    points = [tuple(map(float, p.split())) for p in line.get("d")[1:].split("L")]
    assert len(points) == 5
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(points))


def test_an_interval_that_includes_zero_is_hollow():
    results = make_results()
    tree = drawn(results)
    marks = [e.get("class") for e in tree.iter() if (e.get("class") or "").startswith("mark")]
    assert sum("hollow" in m for m in marks) == 1  # the difference at eps 0
    flat = replace(results.comparisons[0], curve=[around(0.0, 0.1)] * 5)
    tree = drawn(replace(results, comparisons=[flat]))
    marks = [e.get("class") for e in tree.iter() if (e.get("class") or "").startswith("mark")]
    assert sum("hollow" in m for m in marks) == 5


def test_labels_do_not_touch():
    names = tuple(f"model {k}" for k in range(6))
    results = make_results(models=names)
    same = [replace(m, curve=results.models[0].curve) for m in results.models]
    tree = drawn(replace(results, models=same, comparisons=[]))
    heights = sorted(
        float(t.get("y")) for t in tree.iter("text") if (t.text or "").startswith("model")
    )
    assert len(heights) == 6
    assert min(b - a for a, b in itertools.pairwise(heights)) >= 15.9


def test_numbers_that_are_not_finite_are_left_out():
    results = make_results(models=("one",))
    bad = (math.nan, math.nan, math.nan)
    curve = [results.models[0].curve[0], bad, (0.4, math.nan, math.nan), bad, bad]
    svg = robustness_chart(replace(results, models=[replace(results.models[0], curve=curve)]), True)
    assert not re.search(r"\b(nan|inf)\b", re.sub("<(title|desc).*?</", "", svg))


def test_hostile_names_are_escaped():
    svg = robustness_chart(make_results(models=("<b>&\"'", "x" * 200)), True)
    tree = ElementTree.fromstring(svg)
    assert any("<b>&\"'" in (t or "") for t in texts(tree))
    assert max(len(t or "") for t in texts(tree)) < 60


def test_ticks_are_round_and_hold_zero():
    assert nice_ticks(-0.08, 0.52) == pytest.approx([-0.2, 0, 0.2, 0.4, 0.6])
    for low, high in [(0, 0), (-0.003, 0.004), (-1, 1), (0, 0.9)]:
        ticks = nice_ticks(low, high)
        assert ticks[0] <= low <= high <= ticks[-1]
        assert any(abs(t) < 1e-9 for t in ticks)
        assert 2 <= len(ticks) <= 7


def test_epsilons_that_double_are_spread_by_the_square_root():
    assert uses_root([0, 0.5, 1, 2, 4, 8])
    assert not uses_root([0, 1, 2, 3, 4])
    assert not uses_root([0])


def test_the_strip_puts_chance_left_of_a_better_value():
    tree = ElementTree.fromstring(strip(Strip(around(0.6), 0.2, 0.5, 0, "a <model>")))
    chance = next(p for p in tree.iter("path") if p.get("class") == "chance")
    mark = next(c for c in tree.iter("circle") if c.get("class") == "mark solid")
    ring = next(c for c in tree.iter("circle") if c.get("class") == "prior")
    places = float(chance.get("d")[1:].split()[0]), float(ring.get("cx")), float(mark.get("cx"))
    assert places == tuple(sorted(places))
    assert "a <model>: 0.600 [0.56, 0.64], chance 0.200" in tree.find("title").text


def test_names_of_a_difference_that_fit_are_not_cut():
    assert "pgd-0 − standard-0" in texts(drawn(make_results(models=("standard-0", "pgd-0"))))
    told = texts(drawn(make_results(models=("rather-long-too", "longer-than-all"))))
    assert "longer-th… − rather-…" in told


def test_the_worst_case_of_each_image_is_no_attack_of_its_own():
    results = make_results(models=("one",))
    (model,) = results.models
    first = model.attacks[0]
    worst = replace(first, name="worst case", attack={}, accuracy=[(0.0, 0.0, 0.1)] * 5)
    with_worst = replace(results, models=[replace(model, attacks=[*model.attacks, worst])])
    heads = [row.head for block in attack_table(with_worst).blocks for row in block.rows]
    assert heads == [*(a.name for a in model.attacks), "worst of them"]
    last = attack_table(with_worst).blocks[0].rows[-1].cells
    assert {cell.text for cell in last} == {"0.000"}
    assert "worst case" not in texts(ElementTree.fromstring(attack_charts(with_worst)[0].chart))


def test_long_names_are_cut_to_their_breadth():
    assert short("pgd-l2", 8) == "pgd-l2"
    assert short("abcdefghij", 8) == "abcdefg…"
    assert short("M" * 20, 8) == "MMMM…"
    assert short("abcdefgh", 8) == "abcdefgh"


def test_it_is_said_on_which_images_of_the_curve_each_attack_was_measured():
    results = make_results(models=("one",))
    (model,) = results.models
    here = {attack.images for attack in model.attacks}
    assert len(here) == 1
    told = replace(results, models=[replace(model, attacked=200)])
    assert (
        attack_table(told).under
        == f"on {max(here)} of the 200 images of the curve above, drawn by lot"
    )
    same = replace(results, models=[replace(model, attacked=max(here))])
    assert attack_table(same).under == "on the images of the curve above"


def test_no_two_of_many_models_have_the_same_sign():
    signs = [Sign.of(index) for index in range(36)]
    assert [sign.colour for sign in signs[:8]] == [0, 1, 2, 3, 4, 5, 0, 1]
    assert len({(sign.shape, sign.dash) for sign in signs}) == 36
    drawn = {re.sub(r'class="glyph[^"]*"', "", str(glyph(index))) for index in range(18)}
    assert len(drawn) == 18  # told apart in one colour, too
