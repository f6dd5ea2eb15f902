"""Which cases are shown and why, how black boxes are pictured, and the row of every image."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
from tests.audit.squares import COUNT, SIDE, Eyes, squares
from torch import nn

from diascope.attacks import FGSM, BoundaryAttack, Square
from diascope.attacks.base import verdict
from diascope.audit.attackers import minimal_on_grid
from diascope.audit.cases import cases, rows
from diascope.audit.measure import seeded
from diascope.audit.parts import Interface
from diascope.audit.points import attacked_points
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject
from diascope.audit.telling import LOT, choose, select
from diascope.data import load_pixels
from diascope.evaluation import predict

EFFORT = {"queries": 80, "explainers": ("gradient", "occlusion", "gradcam")}
SETTINGS = AuditSettings(
    norm="linf",
    epsilons=(0.01, 0.1, 0.3),
    cases=8,
    shown_epsilons=3,
    attack={"name": "pgd", "steps": 4},
    effort=EFFORT,
)
CPU = torch.device("cpu")


@pytest.fixture
def pixels(tmp_path):
    return load_pixels(squares(), SIDE, cache=tmp_path)


def table_of(pixels, *, wrong=(), sure=(), **columns):
    """A table of even confidence 0.6, but for those that are wrong or sure."""
    right = np.array([0, 1] * (COUNT // 2))
    said = right.copy()
    said[list(wrong)] = 1 - said[list(wrong)]
    p = np.full(COUNT, 0.6)
    p[list(sure)] = 0.95
    frame = {
        "prediction": np.array(["left", "right"], object)[said],
        "correct": said == right,
        "prob_left": np.where(said == 0, p, 1 - p),
        "prob_right": np.where(said == 1, p, 1 - p),
    }
    return pd.DataFrame({**frame, **columns})


def blank():
    return np.full(COUNT, np.nan)


def test_half_are_drawn_by_lot_and_half_say_why_they_were_not(pixels):
    drawn = set(choose(pixels, 8, 0).tolist())
    others = [i for i in range(COUNT) if i not in drawn]
    left, right = ([i for i in others if i % 2 == k] for k in (0, 1))
    minimal, ap, chance = np.full(COUNT, np.inf), np.full(COUNT, 0.5), np.full(COUNT, 0.1)
    minimal[[left[1], right[1], right[2]]] = 0.01, 0.01, 0.2
    ap[[left[2], right[2]]] = 0.01
    first = table_of(
        pixels,
        wrong=[left[0], right[0]],
        sure=[left[0], right[1], left[3]],
        minimal_epsilon=minimal,
        average_precision=ap,
        average_precision_chance=chance,
    )
    second = table_of(pixels, wrong=[left[3]], sure=[left[3]], minimal_epsilon=blank())
    found = dict(select({"a": first, "b": second}, pixels, 16, 0))
    assert len(found) == 16
    assert {row for row, reason in found.items() if reason == LOT} == drawn
    assert found[left[0]] == "confidently wrong: a says right at 0.95"
    assert found[right[1]] == "smallest minimal epsilon: a broken at 0.01"
    assert found[left[2]].startswith("map lowest against chance: average precision 0.01 of a, 0.10")
    assert found[left[3]] in (
        "models disagree: a left, b right",
        "confidently wrong: b says right at 0.95",
    )
    labels = pixels.dataset.labels[list(found)]
    assert np.bincount(labels).tolist() == [8, 8]  # each class as often, by lot or not


def test_by_turns_and_in_the_end_by_lot(pixels):
    wrong = list(range(40))
    only = table_of(pixels, wrong=wrong, minimal_epsilon=blank())
    reasons = [reason for _, reason in select({"a": only}, pixels, 30, 0)]
    assert sum(r.startswith("confidently wrong") for r in reasons) == 15
    nothing = table_of(pixels, minimal_epsilon=blank())
    assert [row for row, _ in select({"a": nothing}, pixels, 9, 0)] == choose(pixels, 9, 0).tolist()
    assert len(select({"a": only}, pixels, 1000, 0)) == COUNT
    assert select({"a": only}, pixels, 0, 0) == []
    assert [r for _, r in select({"a": only}, pixels, 1, 0)] == [LOT]


def test_of_equal_epsilons_the_most_confident_is_shown_first(pixels):
    drawn = set(choose(pixels, 1, 0).tolist())
    others = [i for i in range(COUNT) if i not in drawn]
    minimal = np.full(COUNT, 0.1)
    minimal[others[3]] = 0.05
    table = table_of(pixels, sure=[others[5]], minimal_epsilon=minimal)
    ((_, reason),) = [c for c in select({"a": table}, pixels, 2, 0) if c[1] != LOT]
    assert reason == "smallest minimal epsilon: a broken at 0.05"
    table.minimal_epsilon = 0.1
    # of the class that the lot did not draw
    opposite = [i for i in others if i % 2 != next(iter(drawn)) % 2]
    table = table_of(pixels, sure=[opposite[4]], minimal_epsilon=np.full(COUNT, 0.1))
    ((row, _),) = [c for c in select({"a": table}, pixels, 2, 0) if c[1] != LOT]
    assert row == opposite[4]


def test_all_rows_are_told_and_point_to_their_case(pixels):
    model = Eyes(4.0)
    table = predict(model, pixels)
    shown = cases({"m": model}, {"m": table}, pixels, SETTINGS, CPU)
    assert len(shown) == 8
    assert all(case.reason for case in shown)
    told = rows({"m": table}, pixels, ["m"], shown)
    assert len(told) == COUNT
    for row, label in zip(told, pixels.dataset.table.label, strict=True):
        assert row.label == label
        (view,) = row.views
        assert view.prediction == label  # it is always right
        assert 0.5 < view.probability <= 1
        assert np.isnan(view.minimal_epsilon)
        assert np.isnan(view.localisation)
        if row.case is not None:
            assert shown[row.case].id == row.id
    assert sum(row.case is not None for row in told) == 8
    wrong = table.assign(correct=np.arange(COUNT) != 3)
    told = rows({"m": wrong}, pixels, ["m"], shown)
    assert told[3].views[0].minimal_epsilon == 0  # whether it was attacked or not
    assert np.isnan(told[4].views[0].minimal_epsilon)


def test_views_hold_the_maps_of_other_methods_where_they_fit(pixels):
    model = Eyes(4.0)
    shown = cases({"m": model}, {"m": predict(model, pixels)}, pixels, SETTINGS, CPU)
    for case in shown:
        (view,) = case.views
        assert list(view.maps) == ["occlusion"]  # no convolution: no Grad-CAM
        assert view.maps["occlusion"].shape == (SIDE, SIDE)
        assert not np.array_equal(view.maps["occlusion"], view.heat)


def test_an_image_the_curve_did_not_attack_is_attacked_for_its_picture(pixels):
    model = Eyes(4.0)
    table = predict(model, pixels).assign(minimal_epsilon=np.nan)
    shown = cases({"m": model}, {"m": table}, pixels, SETTINGS, CPU)
    for case in shown:
        (view,) = case.views
        assert np.isnan(view.minimal_epsilon)
        right = [seen.prediction == case.label for seen in view.attacked]
        assert right == [True, True, False]  # 0.3 turns the squares round, as is known


class Shut(nn.Module):
    """What returns scores, or labels only, and has no gradient."""

    def __init__(self, inner, labels):
        super().__init__()
        self.inner, self.labels = inner, labels

    @torch.no_grad()
    def forward(self, x):
        logits = self.inner(x)
        return nn.functional.one_hot(logits.argmax(1), 2).float() if self.labels else logits


@pytest.mark.parametrize("outputs", ["logits", "labels"])
def test_black_boxes_are_pictured_as_their_curve_judges_them(pixels, outputs):
    model = Shut(Eyes(4.0), outputs == "labels").eval()
    facts = Interface("callable", False, outputs, 3, SIDE, "", True)
    subject = Subject("shut", model, None, {}, facts)
    pixels = pixels.take(np.arange(24))
    kind = BoundaryAttack if outputs == "labels" else Square
    settings = SETTINGS.model_copy(
        update={"cases": 6, "epsilons": (0.0, 0.1, 0.35, 0.7), "effort": {"queries": 200}}
    )
    grid = settings.grid(SIDE)
    minimal = minimal_on_grid(
        model,
        pixels.x(),
        pixels.y(),
        kind(norm="linf", queries=200),
        grid,
        generator=seeded(settings, "attack"),
        ids=pixels.ids(),
        batch_size=64,
    )
    assert np.isfinite(minimal[3:]).sum() > 5
    minimal[:3] = np.nan
    table = predict(model, pixels).assign(minimal_epsilon=minimal)
    shown = cases({"shut": model}, {"shut": table}, pixels, settings, CPU, subjects=[subject])
    assert len(shown) == 6
    for case in shown:
        (view,) = case.views
        assert view.maps == {}  # Occlusion alone, which is the one shown
        assert view.heat.max() > 0
        for seen in view.attacked:
            assert np.abs(seen.perturbation).max() <= seen.eps + 1e-6
            if not np.isnan(view.minimal_epsilon):
                assert (seen.prediction == case.label) == (view.minimal_epsilon > seen.eps)


class Windows(nn.Module):
    """Wrong where an even change lies between 0.08 and 0.12 only: a larger attack overshoots."""

    def forward(self, x):
        mean = x.mean((1, 2, 3))
        window = 0.02 - (mean - 0.6).abs()
        return torch.stack([-window, window], 1)


def test_an_image_that_fell_stays_fallen_at_larger_epsilons():
    x, y = torch.full((1, 1, 4, 4), 0.5), torch.zeros(1, dtype=torch.long)

    def broken(minimal):
        points = attacked_points(
            Windows(),
            x,
            y,
            torch.zeros(1, dtype=torch.long),
            attack=FGSM(norm="linf"),
            epsilons=[0.1, 0.3],
            grid=[0.0, 0.1, 0.3],
            minimal=torch.tensor([minimal]),
            seeded=lambda: torch.Generator().manual_seed(0),
        )
        found = []
        for eps, x_adv in points:
            assert (x_adv - x).abs().max() <= eps + 1e-6
            found.append(bool(verdict(Windows(), x_adv, y)))
        return found

    assert not verdict(Windows(), x + 0.3, y).any()
    assert broken(0.1) == [True, True]
    assert broken(float("nan")) == [True, True]
