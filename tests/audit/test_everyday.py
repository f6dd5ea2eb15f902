"""Everyday changes: a net that they mislead, and nets that they do not."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from benchmarks import everyday
from PIL import Image
from tests.audit.benches import bench_of, pixels_of, results_of, told
from tests.audit.places import CLASSES, Colour, Place, squares

from diascope.audit.checks.corruptions import corruptions as check_corruptions
from diascope.audit.parts import CorruptionScore
from diascope.audit.stages.corruptions import CORRUPTIONS


def scored(bench):
    measured = told(bench, CORRUPTIONS)
    return {(score.name, score.severity): score for score in measured.result}, measured


def test_a_net_of_colours_fails_under_another_lamp():
    bench = bench_of(Colour(), squares(), epsilons=(0.001, 0.002, 0.004))
    found, measured = scored(bench)
    assert len(found) == 45
    assert found["colour_cast", 3].drop[0] > 0.3
    assert found["exposure", 5].drop[0] == 0
    assert found["rotation", 3].drop[0] == 0
    for (name, severity), score in found.items():
        column = measured.columns[f"{name}:{severity}:correct"]
        assert score.accuracy[0] == pytest.approx(np.nanmean(column))
        clean = bench.table.correct[~np.isnan(column)].mean()
        assert score.drop[0] == pytest.approx(clean - score.accuracy[0])
        assert score.distance > 0
    results = results_of(bench, corruptions=list(found.values()), curve=[(1.0,) * 3] * 4)
    (finding,) = check_corruptions(results)
    assert finding.severity == "high"
    assert "colour cast" in finding.title
    assert "costs more than the attack" in finding.meaning
    assert "from 1.000 to 1.000" in finding.evidence
    assert check_corruptions(replace(results, reference_eps=0.0))[0].title == finding.title
    weak = results_of(bench, corruptions=measured.result, curve=[(1.0,) * 3, *[(0.0,) * 3] * 3])
    assert "attack costs more" in check_corruptions(weak)[0].meaning


def test_a_net_of_places_passes():
    bench = bench_of(Place(), squares())
    found, measured = scored(bench)
    assert all(score.drop[0] < 0.02 for score in found.values() if score.severity <= 3)
    assert check_corruptions(results_of(bench, corruptions=measured.result)) == []
    assert check_corruptions(results_of(bench)) == []


def test_a_loss_that_is_not_sure_or_only_at_the_worst_is_less():
    bench = bench_of(Place(), squares(4))

    def found(severity, drop):
        score = CorruptionScore("jpeg", severity, 50, (0.5,) * 3, drop)
        return check_corruptions(results_of(bench, corruptions=[score]))

    assert found(1, (0.2, 0.04, 0.4)) == []
    assert found(1, (math.nan,) * 3) == []
    assert found(2, (0.4, 0.3, 0.5))[0].severity == "high"
    assert found(3, (0.4, 0.3, 0.5))[0].severity == "medium"
    assert found(5, (0.4, 0.3, 0.5))[0].severity == "low"


def test_grey_images_have_no_colour_cast():
    grey = squares(channels=1)
    threefold = pixels_of(np.repeat(grey.images, 3, 3), grey.dataset.labels, CLASSES)
    for pixels in (grey, threefold):
        names = {score.name for score in told(bench_of(Place(), pixels), CORRUPTIONS).result}
        assert len(names) == 8
        assert "colour_cast" not in names


def test_corruptions_do_not_depend_on_the_batch():
    bench = bench_of(Colour(), squares(), effort={"corruption_images": 20, "severities": (2, 4)})
    whole = told(bench, CORRUPTIONS)
    assert whole.images == 20
    bench.batch_size = 3
    assert told(bench, CORRUPTIONS).result == whole.result


def test_the_benchmark_draws_its_grid_and_counts_false_alarms(tmp_path):
    picture = tmp_path / "grid.png"
    data = "phantom:images=4,size=16"
    everyday.main(["grid", "--data", data, "--size", "16", "--out", str(picture)])
    with Image.open(picture) as drawn:
        assert drawn.size[0] > 500
    assert everyday.accused(3, 60, 2, 0.999) == 0.0
    error, chance, held = everyday.calibrated(3, 100)
    assert error == pytest.approx(chance, abs=0.05)
    assert held > 0.5
