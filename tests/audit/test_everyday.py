"""Everyday changes, calibration, groups, other hospitals: models that fail and models that do not.

The task: a square on the left or on the right of the picture. A net that looks at its brightness
is right whatever the lamp; one that looks at the colour of the background is right by a shortcut.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks import everyday
from PIL import Image
from tests.audit.benches import bench_of, pixels_of, results_of, subject_of, told
from torch import nn

from diascope.attacks import FAB, FGSM, PGD, AutoAttack, Square
from diascope.audit import AuditSettings
from diascope.audit.attributes import check_attributes, parts_of
from diascope.audit.checks.calibration import calibration as check_calibration
from diascope.audit.checks.corruptions import corruptions as check_corruptions
from diascope.audit.checks.elsewhere import elsewhere as check_elsewhere
from diascope.audit.checks.groups import groups as check_groups
from diascope.audit.elsewhere import elsewhere_pixels, other_sources
from diascope.audit.images import Test as Images
from diascope.audit.parts import Calibration, CorruptionScore, Elsewhere
from diascope.audit.stages.calibration import CALIBRATION, to_the_end
from diascope.audit.stages.corruptions import CORRUPTIONS
from diascope.audit.stages.elsewhere import ELSEWHERE
from diascope.audit.stages.group_scores import GROUP_SCORES
from diascope.data import Dataset, load_pixels, open_dataset
from diascope.errors import UserError

SIDE = 16
CLASSES = ["left", "right"]


def squares(count=60, seed=0, warm=0.03, channels=3, **columns):
    """Squares on the left of even images; the background of these is a little redder."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    x = 0.45 + 0.02 * rng.standard_normal((count, SIDE, SIDE, channels))
    if channels == 3:
        x[..., 0] += (warm * (1 - 2 * labels))[:, None, None]
        x[..., 2] -= (warm * (1 - 2 * labels))[:, None, None]
    for i, label in enumerate(labels):
        x[i, 6:10, 10 * label + 1 : 10 * label + 5] += 0.3
    images = np.rint(x.clip(0, 1) * 255).astype(np.uint8)
    return pixels_of(images, labels, CLASSES, **columns)


class Place(nn.Module):
    """Logits from which side is brighter."""

    def __init__(self, gain=40.0):
        super().__init__()
        self.gain = nn.Parameter(torch.tensor(gain))

    def forward(self, x):
        grey = x.mean(1)
        score = self.gain * (
            grey[:, :, : SIDE // 2].mean((1, 2)) - grey[:, :, SIDE // 2 :].mean((1, 2))
        )
        return torch.stack([score, -score], 1)


class Colour(Place):
    """Logits from whether red exceeds blue."""

    def forward(self, x):
        score = self.gain * (x[:, 0] - x[:, 2]).mean((1, 2))
        return torch.stack([score, -score], 1)


class Single(Place):
    """The same as one logit."""

    def forward(self, x):
        return super().forward(x)[:, 1:] * 2


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


def calibrated(net, pixels, **settings):
    bench = bench_of(net, pixels, **settings)
    measured = told(bench, CALIBRATION)
    return measured, results_of(bench, calibration=measured.result)


def noisy(count=120, wrong=0.3):
    """Squares of which so many bear the label of the other side."""
    pixels = squares(count)
    labels = pixels.dataset.labels.copy()
    flipped = np.random.default_rng(1).random(count) < wrong
    labels[flipped] = 1 - labels[flipped]
    return pixels_of(pixels.images, labels, CLASSES)


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


def of_two_clinics(wrong, count=200, other=0.0, groups=None):
    """Squares of clinics a and b by turns of two; in b so many labels are those of the other."""
    pixels = squares(count)
    sources = np.array(["b" if i // 2 % 2 else "a" for i in range(count)])
    labels = pixels.dataset.labels.copy()
    rng = np.random.default_rng(0)
    share = np.where(sources == "b", wrong, other)
    flipped = rng.random(count) < share
    labels[flipped] = 1 - labels[flipped]
    columns = {"source": sources.tolist(), "sex": ["f" if i % 3 else "m" for i in range(count)]}
    columns["age"] = [str(20 + i % 50) if i % 7 else "" for i in range(count)]
    columns |= {"group": groups} if groups else {}
    return pixels_of(pixels.images, labels, CLASSES, **columns)


def grouped(pixels, minimal=None, attributes=("source", "sex", "age")):
    options = {"attributes": attributes, "epsilons": (0.1, 0.2)}
    bench = bench_of(Place(), pixels, minimal=minimal, **options)
    measured = told(bench, GROUP_SCORES)
    return measured.result, results_of(bench, group_scores=measured.result)


def test_a_model_that_is_wrong_in_one_clinic_is_found_there_and_nowhere_else():
    scores, results = grouped(of_two_clinics(0.4))
    by = {(score.attribute, score.value): score for score in scores}
    assert set(by) >= {("class", "left"), ("source", "a"), ("sex", "f"), ("age", "20 to 29")}
    assert by["age", "unknown"].images == 29
    assert sum(s.images for s in scores if s.attribute == "age") == 200
    b = by["source", "b"]
    assert b.accuracy[0] < 0.7
    assert b.rest[0] == pytest.approx(b.accuracy[0] - by["source", "a"].accuracy[0])
    assert b.rest_corrected[1] < b.rest[1] < b.rest[0] < b.rest[2] < b.rest_corrected[2] < 0
    assert b.within[2] < 0
    assert np.isnan(by["class", "left"].within[0])
    (finding,) = check_groups(results)
    assert finding.severity == "high"
    assert "source b" in finding.title
    assert "100 images of 100" in finding.evidence
    assert check_groups(grouped(of_two_clinics(0.2, other=0.2))[1]) == []
    assert check_groups(grouped(of_two_clinics(0.0))[1]) == []


def test_a_class_that_is_missed_is_found_as_such():
    pixels = of_two_clinics(0.0)
    labels = pixels.dataset.labels.copy()
    labels[1:120:4] = 0  # lefts that look like rights
    pixels = pixels_of(pixels.images, labels, CLASSES)
    (finding,) = check_groups(grouped(pixels, attributes=())[1])
    assert "class left" in finding.title
    assert finding.severity == "medium"


def test_another_mix_of_classes_is_not_taken_for_a_worse_place():
    """The net is right of every left; clinic b has rights, of which half are missed everywhere."""
    labels = np.r_[np.zeros(100, int), np.ones(100, int)]
    source = ["a"] * 90 + ["b"] * 10 + ["a"] * 10 + ["b"] * 90
    images = squares(200).images
    shown = np.where(np.arange(200) % 2 == 0, 0, labels)  # half of the rights look like lefts
    order = [2 * (i % 100) + k for i, k in enumerate(shown)]
    scores, results = grouped(
        pixels_of(images[order], labels, CLASSES, source=source), attributes=("source",)
    )
    b = next(score for score in scores if score.value == "b")
    assert b.rest_corrected[2] < 0
    assert b.within[1] < 0 < b.within[2]
    finding = next(f for f in check_groups(results) if "source" in f.title)
    assert "mix of classes" in finding.meaning
    assert finding.severity != "high"


def test_few_images_are_pooled_noted_and_never_accused():
    sources = ["a"] * 100 + [f"c{i // 4}" for i in range(20)]
    pixels = pixels_of(noisy(120, 0.0).images, np.arange(120) % 2, CLASSES, source=sources)
    scores, _ = grouped(pixels, attributes=("source",))
    others = next(score for score in scores if score.value == "5 others")
    assert others.images == 20
    assert "c0, c1" in others.note
    assert all(score.note == "" for score in scores if score is not others)
    labels = np.arange(60) % 2
    labels[:4] = 1 - labels[:4]
    few = pixels_of(squares(60).images, labels, CLASSES, source=["z"] * 4 + ["a"] * 56)
    scores, results = grouped(few, attributes=("source",))
    z = next(score for score in scores if score.value == "z")
    assert z.note == "fewer than 10 images"
    assert z.rest[0] < -0.9
    assert np.isnan(z.rest[1:] + z.rest_corrected[1:] + z.within[1:]).all()
    assert check_groups(results) == []
    for images, groups, guilty in ((9, 9, False), (10, 4, False), (10, 5, True)):
        score = replace(z, images=images, groups=groups, rest_corrected=(-0.9, -1, -0.4))
        model = replace(results.models[0], group_scores=[score])
        assert bool(check_groups(replace(results, models=[model]))) == guilty
    patients = [f"p{min(i // 12, 1)}" for i in range(200)]  # 12 images of one patient
    one = of_two_clinics(0.0, groups=patients)
    scores, _ = grouped(one, attributes=("sex",))
    assert all(score.groups == 2 for score in scores)


def test_accuracy_under_attack_is_that_of_the_images_that_were_attacked():
    minimal = np.full(200, np.nan)
    minimal[:40] = np.where(np.arange(40) % 2 == 0, 0.1, np.inf)
    scores, _ = grouped(of_two_clinics(0.0), minimal)
    by = {score.value: score.attacked[0] for score in scores if score.attribute == "class"}
    assert by == {"left": 0.0, "right": 1.0}
    scores, _ = grouped(of_two_clinics(0.0))
    assert all(np.isnan(score.attacked[0]) for score in scores)


def test_attributes_are_columns_of_the_table():
    dataset = of_two_clinics(0.0).dataset
    with pytest.raises(UserError, match="no column 'sexx'.*'sex'"):
        check_attributes(dataset, ["sexx"])
    bench = bench_of(Place(), squares(), attributes=("device",))
    with pytest.raises(UserError, match="device"):
        GROUP_SCORES.passes(bench)
    weights = [f"{1000 + 37 * i % 900}" for i in range(60)]
    quarters = parts_of(squares(weight=weights).dataset, ["weight", "class", "label"])
    assert len([part for part in quarters if part.attribute == "weight"]) == 4
    assert all(part.rows.sum() == 15 for part in quarters if part.attribute == "weight")
    assert [p.value for p in parts_of(squares(source=["a"] * 60).dataset, ["source"])] == CLASSES


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
