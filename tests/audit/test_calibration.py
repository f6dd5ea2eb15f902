"""Calibration, clean and under attack: heads that are too sure, hedge, or are honest."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.audit.benches import bench_of, results_of, told
from tests.audit.places import Place, Single, noisy, squares

from diascope.attacks import FAB, FGSM, PGD, AutoAttack, Square
from diascope.audit.checks.calibration import calibration as check_calibration
from diascope.audit.parts import Calibration
from diascope.audit.stages.calibration import CALIBRATION, to_the_end


def calibrated(net, pixels, **settings):
    bench = bench_of(net, pixels, **settings)
    measured = told(bench, CALIBRATION)
    return measured, results_of(bench, calibration=measured.result)


def test_a_sure_head_on_noisy_labels_is_overconfident():
    measured, results = calibrated(Place(400.0), noisy(), epsilons=(0.0,))
    (clean,) = measured.result
    assert clean.eps == 0
    assert clean.images == 120
    assert clean.confidence[0] > 0.99
    assert clean.gap[0] == pytest.approx(clean.confidence[0] - clean.accuracy[0])
    assert clean.ece[0] == pytest.approx(clean.gap[0], abs=1e-6)
    assert clean.ece[1] <= clean.ece[0] <= clean.ece[2]
    assert sum(part.images for part in clean.bins) == 120
    (finding,) = check_calibration(results)
    assert finding.severity == "high"
    assert "surer" in finding.title


def test_a_head_that_hedges_is_calibrated_and_one_that_hedges_too_much_is_said():
    p = 0.7
    score = math.log(p / (1 - p)) / 2  # what both logits must be apart for this confidence
    net = Place(1.0)
    net.forward = lambda x: score * torch.sign(Place.forward(net, x))
    measured, results = calibrated(net, noisy(), epsilons=(0.0,))
    assert measured.result[0].gap[1] < 0 < measured.result[0].gap[2]
    assert measured.result[0].ece[0] < 0.12
    assert check_calibration(results) == []
    _, timid = calibrated(Place(0.1), squares(), epsilons=(0.0,))
    (finding,) = check_calibration(timid)
    assert finding.severity == "low"
    assert "more often" in finding.title


def test_an_attack_to_the_end_leaves_a_sharp_net_sure_and_a_flat_one_not():
    grid = {"epsilons": (0.05, 0.1, 0.2), "attack": {"name": "pgd", "steps": 5}}
    measured, results = calibrated(Place(60.0), squares(), **grid)
    attacked = measured.result[1]
    assert attacked.eps == 0.1
    assert attacked.accuracy[0] == 0
    assert attacked.confidence_wrong[0] > 0.9
    assert np.isnan(attacked.confidence_right[0])
    assert attacked.attack["stop_early"] is False
    assert attacked.attack["returns"] == "best"
    column = measured.columns["calibration:confidence"]
    assert np.nanmean(column) == pytest.approx(attacked.confidence[0])
    (finding,) = [f for f in check_calibration(results) if "under attack" in f.title]
    assert finding.severity == "medium"
    assert finding.count == 60
    stopped = replace(attacked, attack={**attacked.attack, "stop_early": True})
    assert check_calibration(with_calibration(results, [stopped])) == []
    measured, results = calibrated(Place(2.0), squares(), **grid)
    assert measured.result[1].accuracy[0] == 0
    assert [f for f in check_calibration(results) if "under attack" in f.title] == []


def with_calibration(results, parts):
    return replace(results, models=[replace(results.models[0], calibration=parts)])


def test_an_attack_that_stops_at_the_boundary_is_made_to_go_on():
    assert to_the_end(PGD(stop_early=True)).stop_early is False
    assert to_the_end(FGSM(norm="l2")).returns == "best"
    for stops in (FAB(norm="l2"), AutoAttack(norm="l2")):
        assert to_the_end(stops, 7) == PGD(norm="l2", steps=7, returns="best")
    square = Square(norm="l2")
    assert to_the_end(square) is square


def test_calibration_leaves_out_what_is_not_finite_and_knows_single_logits():
    single, _ = calibrated(Single(), squares(), epsilons=(0.0,))
    double, _ = calibrated(Place(), squares(), epsilons=(0.0,))
    for name in ("ece", "brier", "nll", "confidence", "gap"):
        ours, theirs = getattr(single.result[0], name), getattr(double.result[0], name)
        assert ours == pytest.approx(theirs, abs=1e-5, nan_ok=True)
    bench = bench_of(Place(), squares(), epsilons=(0.0,))
    bench.table.loc[:9, "prob_left"] = np.nan
    assert told(bench, CALIBRATION).result[0].images == 50
    bench.table.loc[:, "prob_left"] = np.nan
    nothing = told(bench, CALIBRATION).result[0]
    assert nothing.images == 0
    assert np.isnan(nothing.ece[0])
    assert check_calibration(results_of(bench, calibration=[nothing])) == []


def test_what_was_not_measured_of_calibration_is_no_fault():
    nan = (math.nan,) * 3
    bench = bench_of(Place(), squares(4))
    for eps in (0.0, 0.1):
        part = Calibration(eps, 9, nan, nan, (0.9,) * 3, (0.1,) * 3, [])
        assert check_calibration(results_of(bench, calibration=[part])) == []
