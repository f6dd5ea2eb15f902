"""Each check of maps finds the model or the method that was built to fail it, and no other."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from tests.audit.mapworld import PATCH, SIDE, Rippled, Seer, bench
from tests.audit.test_checks import results

from diascope.audit.checks import CHECKS
from diascope.audit.parts import Localisation, MapScores
from diascope.audit.stages.maps import MAPS
from diascope.explain import explainers

NAMES = ("centre", "faithfulness", "sanity", "steadiness")


@dataclass(frozen=True)
class Edges:
    """Where the image has edges, whatever the model: what a map must not be."""

    rectification = "absolute"

    def __call__(self, model, x, target, *, generator=None, ids=None):
        across = torch.zeros_like(x)
        across[..., 1:] = x[..., 1:] - x[..., :-1]
        return across


Edges.__module__ = "diascope.explain.edges"


@pytest.fixture(autouse=True)
def edges(monkeypatch):
    explainers.names()
    monkeypatch.setitem(explainers._members, "edges", Edges)


def findings(model, *methods, **options):
    """What the four checks find of a model's maps, by check."""
    scores = MAPS.measure(bench(model, explainers=methods, **options)).result
    told = results(maps=scores, localisation={})
    return {name: found for name in NAMES if (found := CHECKS[name](told))}


def test_maps_that_show_what_a_steady_model_goes_by_pass():
    assert findings(Seer(), "gradient", faithfulness_images=16) == {}


def test_edges_are_neither_faithful_nor_dependent_on_the_weights():
    found = findings(Seer(), "gradient", "edges", faithfulness_images=16)
    assert set(found) == {"sanity", "faithfulness", "centre"}
    for name in ("sanity", "faithfulness"):
        (finding,) = found[name]
        assert finding.severity == "medium"
        assert "(edges)" in finding.title  # and not the gradient
    assert "edges, 8 images: spearman 1.00 [1.00, 1.00], ssim" in found["sanity"][0].evidence


def test_a_net_that_looks_at_the_corner_is_worse_than_the_middle():
    corner = torch.zeros(SIDE, SIDE)
    corner[:8, :8] = 1
    (finding,) = findings(Seer(corner), "gradient")["centre"]
    assert finding.severity == "low"
    assert "blob in the middle (gradient)" in finding.title


def test_a_net_that_goes_by_all_but_the_region_is_below_chance():
    around = torch.rand(SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    around[PATCH] *= 1e-3
    found = findings(Seer(around), "gradient")["centre"]
    assert [f.severity for f in found] == ["medium"]
    assert "avoid the region (gradient" in found[0].title


def test_gradients_that_noise_turns_are_unsteady():
    found = findings(Rippled(), "gradient")
    (finding,) = found["steadiness"]
    assert "noise that nobody sees (gradient)" in finding.title
    assert "steadiness" not in findings(Rippled(), "occlusion")  # its patches see no ripples


def test_models_that_look_elsewhere_from_another_seed():
    corner = torch.zeros(SIDE, SIDE)
    corner[:8, :8] = 1
    card = {"classes": ["dark", "light"], "size": SIDE, "preprocess": {}, "model": {}, "seed": 1}
    card["objective"] = {"name": "standard"}
    other = {"others": {"o": Seer(corner)}, "cards": {"o": card}, "card": {**card, "seed": 0}}
    (finding,) = findings(Seer(), "gradient", **other)["steadiness"]
    assert finding.severity == "low"
    assert "seed of o" in finding.evidence
    other["cards"] = {"o": {**card, "objective": {"name": "adversarial"}}}
    assert findings(Seer(), "gradient", **other) == {}  # another training may look elsewhere


BELOW = Localisation((0.1,) * 3, (0.2,) * 3, (0.5,) * 3, (-0.1, -0.2, -0.05), (-0.4, -0.5, -0.3))


def test_what_is_shown_and_what_is_measured_is_told_once():
    scores = MapScores("gradient", {}, 32, localisation={"average_precision": BELOW})
    told = results(localisation={"average_precision": BELOW}, maps=[scores])
    assert len(CHECKS["centre"](told)) == 1
    assert len(CHECKS["centre"](results(localisation={"average_precision": BELOW}))) == 1


def test_too_few_images_to_judge_are_not_judged():
    scores = MAPS.measure(bench(Seer(), explainers=("edges",), faithfulness_images=6)).result
    assert scores[0].faithfulness["road"].images == 6
    assert CHECKS["faithfulness"](results(maps=scores)) == []
    few = {k: replace(v, images=8) for k, v in scores[0].faithfulness.items()}
    (finding,) = CHECKS["faithfulness"](results(maps=[replace(scores[0], faithfulness=few)]))
    assert finding.severity == "low"


def test_maps_that_change_by_one_measure_alone_weigh_less():
    (scores,) = MAPS.measure(bench(Seer(), explainers=("edges",))).result
    last = replace(scores.sanity[-1], agreement={"spearman": 0.54, "ssim": 0.2}, bounds={})
    told = results(maps=[replace(scores, sanity=[last])])
    (finding,) = CHECKS["sanity"](told)
    assert finding.severity == "low"
    assert "still resemble" in finding.title


def test_of_few_images_it_is_said_that_nothing_is_decided():
    (scores,) = MAPS.measure(bench(Seer(), explainers=("edges",), sanity_images=7)).result
    assert scores.passed is None
    (finding,) = CHECKS["sanity"](results(maps=[scores]))
    assert finding.severity == "info"
    assert "undecided (edges)" in finding.title
    assert "edges, 7 images" in finding.evidence
    told = results(maps=[replace(scores, sanity=[])])
    assert CHECKS["sanity"](told) == []  # it was not run: a black box
