from __future__ import annotations

import io

import numpy as np
import pytest
from matplotlib.text import Text
from sklearn import metrics

from diascope.report.roc import Scored, roc_chart, roc_curve


@pytest.mark.parametrize("seed", range(3))
def test_the_curve_has_the_points_and_the_area_of_sklearn(seed):
    draw = np.random.default_rng(seed)
    positive = draw.random(80) < 0.4
    scores = np.round(draw.normal(positive, 1), 1)  # with ties
    false, true = roc_curve(scores, positive)
    theirs = metrics.roc_curve(positive, scores, drop_intermediate=False)
    np.testing.assert_allclose(false, theirs[0])
    np.testing.assert_allclose(true, theirs[1])
    area = Scored(scores, positive).area(replicates=200)
    assert area.value == pytest.approx(np.trapezoid(true, false))
    assert area.value == pytest.approx(metrics.roc_auc_score(positive, scores))
    assert area.low < area.value < area.high


def test_perfect_and_undefined_curves():
    false, true = roc_curve([0.1, 0.2, 0.8], [False, False, True])
    assert list(zip(false, true, strict=True)) == [(0, 0), (0, 1), (0.5, 1), (1, 1)]
    assert np.isnan(roc_curve([0.1, 0.2], [True, True])[0]).any()
    assert np.isnan(Scored([0.1, 0.2], [True, True]).area(replicates=100).value)
    assert [len(rates) for rates in roc_curve([], [])] == [1, 1]


def test_the_legend_tells_every_area_with_its_interval():
    draw = np.random.default_rng(0)
    positive = draw.random(60) < 0.5
    strong = Scored(positive + draw.normal(0, 0.3, 60), positive)
    weak = Scored(draw.normal(0, 1, 60), positive, groups=np.arange(60) // 2)
    figure = roc_chart(
        {"IID": {"NT": weak, "SGA": strong}, "OOD": {"SGA": weak}}, title="$t$", replicates=200
    )
    text = [t.get_text() for t in figure.findobj(Text)]
    assert {"IID", "OOD", "NT", "SGA", "$t$", "False positive rate"} <= set(text)
    told = [t for t in text if t.startswith("AUROC")]
    assert len(told) == 3
    areas = [weak.area(200), strong.area(200), weak.area(200)]
    for words, area in zip(told, areas, strict=True):
        assert words == f"AUROC {area.value:.3f} [{area.low:.2f}, {area.high:.2f}]"
    curves = [[line for line in axes.get_lines() if line.get_clip_on()][1:] for axes in figure.axes]
    assert [len(lines) for lines in curves] == [2, 1]
    assert curves[1][0].get_color() == curves[0][1].get_color()  # SGA, in both panels
    figure.savefig(io.BytesIO())  # which puts everything in its place
    width, height = figure.get_size_inches() * figure.dpi
    for each in figure.findobj(Text):
        x0, y0, x1, y1 = each.get_window_extent().extents
        assert not each.get_text() or (x0 > -1 and y0 > -1 and x1 < width + 1 and y1 < height + 1)
