"""The figures that a study file declares: checked before anything is trained, and drawn."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.report.studyfactory import FIGURES, RUNS, make_study

from diascope.errors import UserError
from diascope.report.study.charts import bar_chart, line_chart, rounded_ticks
from diascope.report.study.figures import FIGURES as KINDS
from diascope.report.study.figures import Seen, build_figure, check_figures
from diascope.report.study.figures.table import value_cell
from diascope.report.study.series import Value
from diascope.report.study.values import Values
from diascope.studies.study import Study

TABLE = {"kind": "table", "title": "T", "columns": {"clean": "{run}/attacked.correct"}}
LINE = {**FIGURES["masked-share"], "published": {}}
CURVE = {"kind": "curve", "title": "C", "evaluation": "attacked"}


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> Seen:
    store = tmp_path_factory.mktemp("store")
    results = make_study(store)
    return Seen(results, Values(results, store), store)


def study_of(figures: dict[str, Any], **changes: Any) -> Study:
    return Study.model_validate(
        {
            "name": "s",
            "title": "S",
            "seeds": [0],
            "runs": {run: {} for run in RUNS},
            "tests": {"test": {}},
            "evaluations": {
                "attacked": {"measure": {"name": "robust", "epsilons": [0.1]}, "on": "test"}
            },
            "figures": figures,
            **changes,
        }
    )


def test_every_kind_is_declared_soundly_by_the_factory():
    assert {spec["kind"] for spec in FIGURES.values()} == set(KINDS)


@pytest.mark.parametrize(
    ("figure", "told"),
    [
        ({"title": "T"}, "figures.f: 'kind' is missing; one of bars, curve, line"),
        ({"kind": "tabel", "title": "T"}, "no kind 'tabel': did you mean 'table'?"),
        ({**TABLE, "colums": {}}, "unknown key 'colums': did you mean 'columns'?"),
        ({"kind": "table", "columns": {}}, "figures.f: 'title' is missing"),
        ({**TABLE, "runs": ["standrd"]}, "no run 'standrd': did you mean 'standard'?"),
        ({**TABLE, "names": {"agst": "A"}}, "no run 'agst': did you mean 'asgt'?"),
        ({**CURVE, "evaluation": "atacked"}, "no evaluation 'atacked': did you mean 'attacked'?"),
        ({**TABLE, "columns": {"x": "{run}/attacked.corect"}}, "did you mean 'correct'?"),
        ({**TABLE, "columns": {"x": "{rn}/attacked.correct"}}, "no run '{rn}'"),
        ({**TABLE, "columns": {"x": {"mea": [1, 2]}}}, "no operation 'mea'"),
        ({**TABLE, "published": {"sgt": {"clan": 3}}}, "published: no run, line or heading 'clan'"),
        ({**LINE, "x": {"sgt": -1}}, "x.sgt = -1: use 0 or more"),
        ({**LINE, "published": {"FGM": {0.1: 1}}}, "did you mean 'FGSM'?"),
        ({**LINE, "x": {"sgd": 1}}, "no run 'sgd': did you mean 'sgt'?"),
    ],
)
def test_a_mistake_is_one_line_with_the_nearest_name(figure, told):
    with pytest.raises(UserError) as caught:
        check_figures(study_of({"f": figure}), "s.yaml")
    assert told in str(caught.value)
    assert str(caught.value).startswith("s.yaml: figures.f")
    assert "\n" not in str(caught.value)


def test_sound_figures_pass():
    check_figures(study_of({"t": TABLE, "c": CURVE}), "s.yaml")


def test_a_name_that_is_no_file_name_is_refused():
    with pytest.raises(UserError, match="name a figure by letters"):
        check_figures(study_of({"../up": TABLE}), "s.yaml")


def test_values_are_means_over_images_and_seeds_with_each_seed(seen):
    keys = seen.results.tables["attacked"]["sgt"]
    frames = [pd.read_parquet(seen.store / "tables" / f"{key}.parquet") for key in keys.values()]
    found = seen.values.of("sgt/attacked.fgsm@0.2")
    means = [frame["fgsm@0.2"].mean() for frame in frames]
    assert found.bounds.value == pytest.approx(np.mean(means))
    assert list(found.seeds.values()) == pytest.approx(means)
    assert found.bounds.low < found.bounds.value < found.bounds.high
    twice = seen.values.of({"minus": ["sgt/attacked.fgsm@0.2", "sgt/attacked.fgsm@0.2"]})
    assert (twice.bounds.value, twice.bounds.low, twice.bounds.high) == (0, 0, 0)


def test_what_was_not_measured_has_no_value(seen):
    for quantity in ("asgt/nothing.correct", "asgt/attacked.nothing", "who/attacked.correct"):
        assert seen.values.of(quantity) is None
    assert seen.values.of(0.1).bounds.value == 0.1


def test_a_condition_compares_the_runs_on_the_images_that_all_have_right(seen):
    quantities = [f"{run}/attacked.fgsm@0.25 where all_correct" for run in RUNS]
    together = [each.bounds.value for each in seen.values.across(quantities)]
    alone = [seen.values.of(each).bounds.value for each in quantities]
    frames = [
        pd.read_parquet(seen.store / "tables" / f"table{k}00.parquet") for k in range(len(RUNS))
    ]
    right = np.logical_and.reduce([frame["correct"] for frame in frames])
    assert seen.values.across(quantities)[0].seeds[0] == frames[0]["fgsm@0.25"][right].mean()
    assert together != alone


def test_a_curve_has_a_panel_an_attack_and_the_published_in_shares(seen):
    drawn = build_figure(FIGURES["figure-3"], "f").show(seen)
    assert [plot.title for plot in drawn.plots] == ["fgsm", "pgd", "strongest attack"]
    first = drawn.plots[0]
    assert [x for x, _ in first.series[0].points] == [0, 0.1, 0.2, 0.25]
    assert first.series[0].published == [(0.25, pytest.approx(0.2788))]
    assert drawn.plots[1].series[0].published == []
    chosen = build_figure({**CURVE, "attacks": ["pgd"], "clean": False}, "f").show(seen)
    assert [x for x, _ in chosen.plots[0].series[0].points] == [0.1, 0.2, 0.25]


def test_charts_say_in_words_what_they_draw(seen):
    plot = build_figure(FIGURES["figure-3"], "f").show(seen).plots[0]
    svg = str(line_chart(plot, "a"))
    assert "Published: 0.2788 at 0.25." in svg
    assert svg.count('class="band"') == 3
    panel = build_figure(FIGURES["clean"], "f").show(seen).bars[1]
    assert "standard: " in (svg := str(bar_chart(panel, "b")))
    assert "published 0.1636" in svg
    assert svg.count('class="seed"') == 9


def test_a_seed_draws_no_band_and_no_strokes(tmp_path):
    results = make_study(tmp_path, seeds=(0,), images=10)
    alone = Seen(results, Values(results, tmp_path), tmp_path)
    drawn = build_figure(FIGURES["masked-share"], "f").show(alone)
    assert 'class="band"' not in str(line_chart(drawn.plots[0], "a"))
    bars = build_figure(FIGURES["clean"], "f").show(alone).bars[0]
    assert 'class="seed"' not in str(bar_chart(bars, "b"))


def test_pictures_are_of_the_images_that_every_run_shows(seen):
    about = {**seen.results.about}
    shown = {run: {"0": dict(by_seed["0"])} for run, by_seed in about["shown"].items()}
    shown["sgt"]["0"]["pictures"] = shown["sgt"]["0"]["pictures"][1:]
    fewer = replace(seen, results=replace(seen.results, about={"shown": shown}))
    figure = build_figure(FIGURES["maps"], "f")
    assert "look: 3 images with their gradient, gradcam maps" in figure.show(seen).alt
    assert ": 2 images" in figure.show(fewer).alt
    assert figure.show(seen).notes[0].endswith(" The models are those of seed 0.")
    shown["sgt"] = {"3": shown["sgt"]["0"]}
    (note,) = figure.show(fewer).notes
    assert note.endswith(" The models are those of seed: standard 0, sgt 3, asgt 0.")
    nothing = replace(seen, results=replace(seen.results, about={}))
    assert figure.show(nothing).notes == ["No pictures were made."]


def test_every_seed_of_one_run_is_a_column(seen):
    by_seed = {str(s): seen.results.about["shown"]["sgt"]["0"] for s in (0, 1)}
    two = replace(seen, results=replace(seen.results, about={"shown": {"sgt": by_seed}}))
    spec = {**FIGURES["maps"], "every_seed": True}
    drawn = build_figure({**spec, "runs": ["sgt"]}, "f").show(two)
    assert "seed 0 classifies 2 of 3 correctly; seed 1 classifies" in drawn.alt
    with pytest.raises(UserError, match="name the one run under 'runs'"):
        build_figure(spec, "f")


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-0.05, 0.2), (0, 0.003), (-3, -3), (0, 731)])
def test_ticks_span_what_is_drawn(low, high):
    ticks = rounded_ticks(low, high)
    assert ticks[0] <= low + 1e-9
    assert ticks[-1] >= high - 1e-9
    assert 2 <= len(ticks) <= 8


def test_what_is_not_measured_yet_is_said(tmp_path):
    results = replace(make_study(tmp_path, seeds=(0,), images=10), tables={})
    empty = Seen(results, Values(results, tmp_path), tmp_path)
    assert build_figure(CURVE, "f").show(empty).notes == ["Nothing was measured yet."]
    svg = str(bar_chart(build_figure(FIGURES["clean"], "f").show(empty).bars[0], "b"))
    assert svg.count("not measured</text>") == 3
    assert ">0.2</text>" in svg


def test_a_cell_tells_the_range_of_few_seeds_which_its_interval_does_not_speak_of():
    few = Value((0.5, 0.4, 0.6), {0: 0.3, 1: 0.7, 2: 0.5})
    assert value_cell(few, None).under == "[0.40, 0.60],\nseeds 0.300 to 0.700"
    assert value_cell(few, None, percent=True).under == "[40.0, 60.0],\nseeds 30.0 to 70.0"
    same = Value((0.5, 0.4, 0.6), dict.fromkeys(range(3), 0.5))
    assert value_cell(same, None).under == "[0.40, 0.60]"
    enough = Value((0.5, 0.4, 0.6), dict.fromkeys(range(5), 0.5))
    assert value_cell(enough, None).under == "[0.40, 0.60]"
