"""Another hospital: a shortcut is lost there, and what was seen is left out."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.audit.benches import bench_of, results_of, subject_of, told
from tests.audit.places import Colour, Place, of_two_clinics, squares
from torch import nn

from diascope.audit import AuditSettings
from diascope.audit.checks.elsewhere import elsewhere as check_elsewhere
from diascope.audit.elsewhere import elsewhere_pixels, other_sources
from diascope.audit.images import Test as Images
from diascope.audit.parts import Elsewhere
from diascope.audit.stages.elsewhere import ELSEWHERE
from diascope.data import Dataset, load_pixels, open_dataset
from diascope.errors import UserError


def abroad(net, pixels, **settings):
    settings = {"epsilons": (0.05, 0.1), "attack": {"name": "pgd", "steps": 3}, **settings}
    bench = bench_of(net, squares(80), elsewhere={"abroad": pixels}, **settings)
    measured = told(bench, ELSEWHERE)
    return measured.result[0], results_of(bench, elsewhere=measured.result)


def test_a_shortcut_is_lost_in_a_clinic_without_it():
    there = squares(60, seed=5, warm=0.0, name="abroad")
    place, results = abroad(Colour(), there)
    assert place.here["balanced_accuracy"][0] == 1
    assert place.scores["balanced_accuracy"][0] < 0.75
    drop = place.drop["balanced_accuracy"]
    assert drop[0] == pytest.approx(1 - place.scores["balanced_accuracy"][0])
    assert 0 < drop[1] < drop[0] < drop[2]
    assert place.attacked_images == 60
    assert place.attacked[0] == 0
    (finding,) = check_elsewhere(results)
    assert finding.severity == "high"
    assert "abroad" in finding.title
    held, results = abroad(Place(), there)
    assert held.drop["accuracy"][0] == 0
    assert check_elsewhere(results) == []


def test_missing_classes_are_left_out_at_home_too():
    pixels = squares(40, seed=3, name="abroad").take(np.arange(0, 40, 2))
    place, results = abroad(Place(), pixels, epsilons=(0.0,))
    assert place.missing == ["right"]
    assert place.here["accuracy"][0] == 1
    assert np.isnan(place.scores["auroc"][0])
    assert np.isnan(place.attacked[0])
    assert check_elsewhere(results) == []


def test_a_drop_of_accuracy_alone_accuses_only_where_nothing_else_is_known():
    bench, nan = bench_of(Place(), squares(4)), (math.nan,) * 3
    fell, sure = (0.3, 0.2, 0.4), (0.5, 0.45, 0.55)
    place = Elsewhere(
        "b", 50, 50, {"accuracy": sure, "balanced_accuracy": sure, "auroc": sure}, {}, nan
    )

    def found(**drop):
        return check_elsewhere(results_of(bench, elsewhere=[replace(place, drop=drop)]))

    assert found(accuracy=fell, balanced_accuracy=(0.0, -0.1, 0.1), auroc=nan) == []
    assert len(found(accuracy=fell, balanced_accuracy=nan, auroc=nan)) == 1
    assert "AUROC" in found(balanced_accuracy=(0.1, 0.01, 0.2), auroc=fell)[0].title
    assert found(accuracy=nan) == []
    assert found() == []


class Stickers(nn.Module):
    """What no-one should learn: the colour of the sticker, whatever the lesion."""

    def __init__(self, x, y, classes):
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.mix = nn.Conv2d(3, 48, 1)
        self.mix.weight.data = torch.randn(48, 3, 1, 1, generator=g)
        self.mix.bias.data = torch.randn(48, generator=g) * 0.5
        features = self.features(x)
        target = torch.eye(classes)[y]
        ridge = features.T @ features + 0.05 * torch.eye(features.shape[1])
        self.head = nn.Parameter(20 * torch.linalg.solve(ridge, features.T @ target))

    def features(self, x):
        pooled = self.mix(x).relu().flatten(2)
        pooled = torch.cat([pooled.amax(2), pooled.mean(2), torch.ones(len(x), 1)], 1)
        return pooled.detach()

    def forward(self, x):
        pooled = self.mix(x).relu().flatten(2)
        return torch.cat([pooled.amax(2), pooled.mean(2), torch.ones(len(x), 1)], 1) @ self.head


def test_the_shortcut_of_one_phantom_hospital_fails_in_the_other():
    options = {"size": 16, "agreement": 1.0, "agreement_b": 0.34, "second_views": 0.0}

    def drawn(images, hospital, seed):
        dataset = open_dataset("phantom", images=images, hospital=hospital, seed=seed, **options)
        return load_pixels(dataset, size=16)

    train = drawn(96, "a", 1)
    net = Stickers(train.x(), train.y(), 3)
    home, other = drawn(64, "a", 2), drawn(64, "b", 3)
    bench = bench_of(net, home, elsewhere={"hospital b": other}, epsilons=(0.0,))
    (place,) = told(bench, ELSEWHERE).result
    assert place.scores["balanced_accuracy"][0] < place.here["balanced_accuracy"][0] - 0.15
    (finding,) = check_elsewhere(results_of(bench, elsewhere=[place]))
    assert "hospital b" in finding.title


def test_other_hospitals_are_prepared_and_what_was_seen_is_left_out():
    first = open_dataset("phantom", images=40, size=16, seed=4)
    away = open_dataset("phantom", images=60, size=16, seed=5, hospital="b")
    subject = subject_of(Place(), load_pixels(first, size=16))
    table = away.table.assign(split="train")[["path", "group", "split"]].iloc[:6]
    contents = load_pixels(away, size=16).fingerprints()
    subject = replace(subject, split=table.assign(content=contents[:6], path="x", group="y"))
    settings = AuditSettings(effort={"elsewhere_images": 50})
    found = elsewhere_pixels([away, away], [subject], settings)
    assert list(found) == [away.name, f"{away.name} (2)"]
    pixels = found[away.name]
    assert 44 <= len(pixels) <= 50
    assert not set(contents[:6]) & set(pixels.fingerprints())
    assert pixels.dataset.classes == first.classes
    nevi = away.restrict(["nevus"])
    only = elsewhere_pixels([nevi], [subject], settings)[away.name]
    assert only.dataset.classes == first.classes
    assert set(only.dataset.table.label) == {"nevus"}
    wrong = Dataset.of("wrong", {"path": ["a"], "label": ["cat"]}, ["cat"], away.reader)
    with pytest.raises(UserError, match="wrong: no image of the models' classes"):
        elsewhere_pixels([wrong], [subject], settings)


def test_sources_that_no_model_was_trained_on_are_elsewhere():
    pixels = of_two_clinics(0.5, count=80)
    clinics = pixels.dataset.table.source.to_numpy(str)
    trained = pixels.take(clinics == "a")
    found = other_sources(Images(pixels, {}, trained))
    assert list(found) == ["source b"]
    assert len(found["source b"]) == 40
    bench = bench_of(Place(), pixels, elsewhere=found, epsilons=(0.0,))
    (place,) = told(bench, ELSEWHERE).result
    assert place.here["accuracy"][0] == 1  # of clinic a alone
    assert place.drop["accuracy"][1] > 0
    assert other_sources(Images(pixels, {}, None)) == {}
    assert other_sources(Images(pixels, {}, pixels)) == {}
    assert other_sources(Images(found["source b"], {}, trained)) == {}
