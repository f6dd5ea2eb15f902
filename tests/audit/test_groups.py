"""Accuracy of groups: a model that is worse for one is found, and luck is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.audit.benches import bench_of, pixels_of, results_of, told
from tests.audit.places import CLASSES, Place, noisy, of_two_clinics, squares

from diascope.audit.attributes import check_attributes, parts_of
from diascope.audit.checks.groups import groups as check_groups
from diascope.audit.stages.group_scores import GROUP_SCORES
from diascope.errors import UserError


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
