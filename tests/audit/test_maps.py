"""The maps of a model on a bench: what is measured of which methods, on which images."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from pydantic import TypeAdapter
from tests.audit.mapworld import CARD, COUNT, SIDE, Net, Seer, bench

from diascope.audit.mapmethods import FAITHFUL, methods, parts_of
from diascope.audit.mapsummary import with_correct
from diascope.audit.stages.maps import MAPS, seeds_apart
from diascope.evaluation import localisation_table
from diascope.explain import completeness, explainers, rectify
from diascope.explain.base import need_of, passes_of

LIGHT = {"faithfulness_images": 0, "steadiness_images": 0, "sanity_images": 0}


def test_every_method_has_what_it_can_have():
    few = {"map_images": 10, "faithfulness_images": 2, "steadiness_images": 4, "sanity_images": 2}
    made = bench(Net(), explainers=("gradcam", "integrated_gradients"), **few)
    measured = MAPS.measure(made)
    shown, other = measured.result
    assert [shown.name, other.name] == ["gradcam", "integrated_gradients"]
    assert (shown.images, other.images) == (10, 4)  # the costly one on fewer
    for scores in measured.result:
        assert set(scores.localisation) >= {"average_precision", "mass_inside", "pointing"}
        assert set(scores.faithfulness) == set(FAITHFUL)
        assert {"gini", "colour_variation", "deletion", "road"} <= set(scores.measures)
        assert {each.against for each in scores.steadiness} == {"noise 0.01", "attack"}
        assert [step.layers for step in scores.sanity] == ["fc", "conv2", "conv1"]
        assert scores.passed is None  # of two images nothing is decided
        assert {step.images for step in scores.sanity} == {2}
        assert all(set(step.bounds) == set(step.agreement) for step in scores.sanity)
    assert "completeness" not in shown.measures
    x, y = made.pixels.x(rows := made.drawn(4)), made.pixels.y(rows)
    drawn = {"generator": made.seeded("explain"), "ids": made.pixels.ids(rows)}
    gap = completeness(explainers.build(other.name), made.model, x, y, **drawn).gap.mean()
    assert other.measures["completeness"][0] == pytest.approx(float(gap), rel=1e-3)
    assert other.explainer["steps"] == 50
    told = json.loads(json.dumps([asdict(scores) for scores in measured.result]))
    again = TypeAdapter(MAPS.kind).validate_python(told)
    assert [asdict(scores)["localisation"] for scores in again] == [
        asdict(scores)["localisation"] for scores in measured.result
    ]


def test_columns_are_those_of_the_maps_and_empty_where_none_were_made():
    made = bench(Net(), explainers=("gradient", "gradcam"), map_images=10, **LIGHT)
    columns = MAPS.measure(made).columns
    rows = made.drawn(10)
    for prefix, name in (("", "gradient"), ("gradcam:", "gradcam")):
        method = explainers.build(name)
        raw = method(made.model, made.pixels.x(rows), made.pixels.y(rows))
        wanted = localisation_table(rectify(raw, method.rectification), made.pixels.m(rows))
        for key, values in wanted.items():
            column = columns[prefix + key]
            assert len(column) == COUNT
            assert np.flatnonzero(np.isfinite(column)).tolist() == rows.tolist()
            np.testing.assert_allclose(column[rows], values, atol=1e-4)


def test_nothing_depends_on_the_batch_and_nothing_is_explained_twice(monkeypatch):
    options = {"explainers": ("gradient",), "map_images": 12, "steadiness_images": 6}
    tables, calls = [], []
    method = type(explainers.build("gradient"))
    explain = method.__call__

    def counted(self, model, x, *rest, **named):
        calls.append(len(x))
        return explain(self, model, x, *rest, **named)

    monkeypatch.setattr(method, "__call__", counted)
    for size in (5, 64):
        made = bench(Net(), batch_size=size, **options, sanity_images=4)
        tables.append(MAPS.measure(made).columns)
    for name, column in tables[0].items():
        np.testing.assert_allclose(column, tables[1][name], atol=2e-3, err_msg=name)
    once = 1 + 12 + 6 * (3 + 1) + 4 * 3  # a trial, the maps, noise and attack, random weights
    assert sum(calls) == 2 * once


@pytest.mark.parametrize("name", sorted(explainers))
def test_the_passes_of_a_method_are_foretold(name):
    method = explainers.build(name)
    if need_of(method) == "soft attention":
        pytest.skip("this net has none")
    net, count = Net(), 8
    x = torch.rand(count, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    method(net, x[:1], 0)  # what is looked at once a model is not of the method
    Net.passes[0] = 0
    method(net, x, 0)
    assert Net.passes[0] / count <= 1.3 * passes_of(method, SIDE)
    assert Net.passes[0] / count >= 0.5 * passes_of(method, SIDE)


def test_the_plan_is_kept():
    told = []
    made = bench(
        Net(),
        explainers=("gradient", "smoothgrad", "gradcam"),
        map_images=12,
        faithfulness_images=3,
        others={"o": Net(1)},
        tell=told.append,
    )
    plan = MAPS.passes(made)
    Net.passes[0] = 0
    MAPS.measure(made)
    assert plan / 2 <= Net.passes[0] <= plan
    assert 0.9 * plan <= sum(told) <= plan


def test_what_does_not_fit_is_left_out_with_its_reason():
    made = bench(Seer(), explainers=("gradcam", "gradient"), **LIGHT)
    fitting, left = MAPS.measure(made).result
    assert fitting.name == "gradient"
    assert left.name == "gradcam"
    assert left.left_out
    assert left.images == 0


class Refusing(Seer):
    """A net that returns numbers and no gradients, as a file from elsewhere may."""

    @torch.no_grad()
    def forward(self, x):
        return super().forward(x)


def test_a_black_box_is_explained_by_occlusion_alone():
    made = bench(Refusing(), gradients=False, explainers=("gradient", "smoothgrad"))
    (scores,) = MAPS.measure(made).result
    assert scores.name == "occlusion"
    assert scores.images == COUNT // 4
    assert scores.localisation["average_precision"].value[0] > 0.8
    assert scores.sanity == []
    assert scores.passed is None
    assert {each.against for each in scores.steadiness} == {"noise 0.01"}


def test_another_seed_is_called_one_and_another_training_is_not():
    assert seeds_apart(CARD | {"objective": {}}, CARD | {"objective": {}, "seed": 1})
    ours = CARD | {"objective": {"name": "standard"}}
    assert not seeds_apart(ours, ours)
    assert not seeds_apart(ours, CARD | {"objective": {"name": "trades"}, "seed": 1})
    assert not seeds_apart(ours, ours | {"seed": 1, "data": {"fingerprint": "another"}})
    assert not seeds_apart({}, {"seed": 1})  # of a foreign model nothing is known


def test_localisation_where_all_are_right():
    made = bench(Net(), explainers=("gradient",), **LIGHT)
    measured = MAPS.measure(made)
    correct = made.table.correct.to_numpy()
    assert 0 < correct.sum() < COUNT
    (scores,) = measured.result
    wanted = measured.columns["average_precision"][correct].mean()
    mine = scores.localisation_correct["average_precision"].value[0]
    assert mine == pytest.approx(wanted, abs=1e-6)
    first = np.arange(COUNT) < 5
    (again,) = with_correct(measured.result, measured.columns, first, made.groups, made.bootstrap)
    wanted = measured.columns["average_precision"][:5].mean()
    assert again.localisation_correct["average_precision"].value[0] == pytest.approx(wanted)


def test_the_shown_method_comes_first_with_its_own_settings():
    made = bench(Seer())
    settings = made.settings.model_copy(update={"explainer": {"name": "smoothgrad", "samples": 5}})
    chosen = methods(settings, made.effort)
    assert list(chosen) == ["smoothgrad", "gradient", "gradcam"]
    assert chosen["smoothgrad"].samples == 5
    assert list(methods(made.settings, made.effort)) == ["gradient", "smoothgrad", "gradcam"]
    settings = made.settings.model_copy(update={"explainer": {"of": "loss"}})
    assert methods(settings, made.effort)["gradient"].of == "loss"


def test_draws_of_a_method_lie_in_one_another():
    made = bench(Net(), faithfulness_images=16)
    for name in ("gradient", "smoothgrad"):
        parts = parts_of(made, explainers.build(name))
        for part in (parts.faithfulness, parts.steadiness, parts.sanity):
            assert set(part.rows) <= set(parts.maps.rows)
