"""The plan of an audit: what it expects, what is told of it, and which images are drawn."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.audit.benches import pixels_of
from tests.audit.counted import SCORE, Counted, cached, make, steps, with_scratch
from tests.audit.squares import Eyes, squares

from diascope.audit.bench import drawn
from diascope.audit.cases import passes_of_cases
from diascope.audit.perform import perform
from diascope.audit.plan import Plan, Step, duration, lacking, make_plan
from diascope.audit.stages import Measured, in_order
from diascope.audit.stored import Shelf
from diascope.data import load_pixels
from diascope.data.preprocess import Preprocess


@pytest.fixture
def pixels(tmp_path):
    return cached(tmp_path)


@pytest.fixture
def bench(pixels, tmp_path):
    return with_scratch(pixels, tmp_path)


def test_progress_is_told_in_passes_and_never_exceeds_the_plan(bench, tmp_path):
    told = []

    def busy(bench):
        bench.tell(8)
        bench.tell(8)

    perform(
        steps(bench, predictions=Counted(act=busy).stage()),
        Shelf(tmp_path),
        tell=lambda *state: told.append(state),
    )
    assert [t[2] for t in told] == [0, 8, 10, 10]
    assert {t[3] for t in told} == {10}


@pytest.mark.parametrize(
    ("settled", "told", "heard"),
    [
        (True, [40, 60], [(12, 30), (30, 30)]),  # all images are settled with 30 of 100 passes
        (False, [12, 18], [(12, 30), (30, 33), (30, 30)]),  # so many were made; more may come
        (False, [12], [(12, 30), (30, 30)]),  # the checks end early
        (False, [60, 30], [(60, 63), (90, 91), (90, 90)]),  # a model that withstands
    ],
)
def test_what_is_told_of_a_stage_is_what_the_plan_expects_of_it(
    bench, tmp_path, settled, told, heard
):
    def measure(bench):
        for passes in told:
            bench.tell(passes)
        return Measured([SCORE], {}, 1)

    stage = Counted().stage(share=0.3, settled=settled)
    step, states = Step(bench, "predictions", replace(stage, measure=measure), 100, 1.0), []
    perform(Plan([step]), Shelf(tmp_path), tell=lambda *state: states.append(state[2:]))
    assert states == [pytest.approx(state) for state in [(0, 30), *heard]]


def test_the_cases_are_in_the_plan_with_their_own_time(pixels):
    def planned(**options):
        made = make(pixels, Eyes(1.0), budget="quick", **options)
        plan = make_plan([made])
        return plan, passes_of_cases(made)

    plan, passes = planned(cases=10)
    assert [line.split(":")[0] for line in plan.lines()][-1] == "  cases"
    assert plan.pictures > 0
    assert plan.seconds == pytest.approx(sum(s.seconds for s in plan.steps) + plan.pictures)
    assert planned(cases=20)[1] == pytest.approx(2 * passes)
    assert planned(cases=20, shown_epsilons=1)[1] < passes * 1.3
    nothing, _ = planned(cases=0)
    assert nothing.pictures == 0
    assert "cases" not in "".join(nothing.lines())


def test_the_plan_names_every_stage_and_why_some_are_left_out(pixels, tmp_path):
    bench = make(pixels.take(np.arange(40)), Eyes(1.0), budget="quick")
    plan = make_plan([bench])
    assert [step.name for step in plan.steps] == [name for name, _ in in_order()]
    text = "\n".join(plan.lines())
    assert "predictions: about" in text
    assert plan.seconds > 0
    no_masks = Counted().stage(needs=("masks",))
    assert lacking(bench, no_masks) == ""
    bench.pixels = load_pixels(
        squares(4), 16, Preprocess(crop="none", channels=3), cache=tmp_path / "cache"
    )
    assert lacking(bench, no_masks) == "no image has a mask"
    assert lacking(bench, Counted().stage(needs=("elsewhere",))).startswith("no data of another")


def test_each_stage_plans_more_for_more_effort(pixels):
    benches = [make(pixels, Eyes(1.0), budget=b) for b in ("quick", "standard", "thorough")]
    for name, stage in in_order():
        if any(lacking(bench, stage) for bench in benches):
            continue
        costs = [stage.passes(bench) for bench in benches]
        assert costs == sorted(costs), name
        assert costs[0] > 0, name


def unequal(*sizes):
    """Pixels of classes of so many images, in any order."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    labels = labels[np.random.default_rng(0).permutation(len(labels))]
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    return pixels_of(images, labels, [f"c{k}" for k in range(len(sizes))])


def test_a_smaller_draw_is_part_of_a_larger_one(pixels):
    small, large = drawn(pixels, 10, 0), drawn(pixels, 30, 0)
    assert set(small) < set(large)
    assert np.bincount(pixels.dataset.labels[small]).tolist() == [5, 5]
    assert drawn(pixels, 10, 1).tolist() != small.tolist()
    assert drawn(pixels, None, 0).tolist() == list(range(60))
    assert drawn(pixels, 600, 0).tolist() == list(range(60))


def test_a_draw_holds_each_class_by_its_share_and_none_is_missing():
    sizes = np.array([670, 190, 110, 25, 5])
    world = unequal(*sizes)
    labels = world.dataset.labels
    for count in (20, 32, 48, 128, 250, 500):
        held = np.bincount(labels[drawn(world, count, 0)], minlength=5)
        assert held.min() >= 1  # of 4 images a class and more
        off = np.abs(held - count * sizes / sizes.sum())
        assert off.max() < 2, (count, held)  # what the rare ones take, the commonest gives
    few = np.bincount(labels[drawn(world, 6, 0)], minlength=5)
    assert few.tolist() == [4, 1, 1, 0, 0]
    assert drawn(world, 128, 1).tolist() != drawn(world, 128, 0).tolist()


def test_a_draw_of_both_sides_holds_as_many_of_each_and_classes_by_their_share():
    world = unequal(670, 190, 110, 25, 5)
    bench = make(world, Eyes(1.0))
    side = np.isin(world.dataset.labels, [2, 4])
    for count in (20, 64, 200):
        rows = bench.drawn_of_both(count, side)
        assert side[rows].sum() == count // 2
        assert set(rows) < set(bench.drawn_of_both(count + 4, side))
        held = np.bincount(world.dataset.labels[rows], minlength=5)
        assert held[0] / held[1] == pytest.approx(670 / 190, rel=0.35)
        assert 1 <= held[4] <= held[2] // 4
    rows = bench.drawn_of_both(400, side)  # there are but 115 of one side
    assert (side[rows].sum(), len(rows)) == (115, 400)
    assert len(bench.drawn_of_both(50, np.zeros(1000, bool))) == 50
    assert bench.drawn_of_both(None, side).tolist() == list(range(1000))


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.01, "1 s"), (89, "89 s"), (120, "2 min"), (1200, "20 min"), (7200, "2.0 h")],
)
def test_durations_are_told_to_one_unit(seconds, words):
    assert duration(seconds) == words
