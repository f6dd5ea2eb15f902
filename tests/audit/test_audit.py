"""The audit on a task whose answers are known: a bright square on the left or on the right."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from tests.audit.squares import COUNT, SIDE, TINY, Eyes, Squares, squares

from diascope.attacks.base import at_eps, verdict
from diascope.audit import AuditSettings, Subject, audit, open_subjects, plan, unseen, unseen_pixels
from diascope.audit.cases import choose, shown_epsilons
from diascope.audit.parts import Interface
from diascope.audit.stages import STAGES
from diascope.data import Preprocess, load_pixels
from diascope.errors import UserError
from diascope.models import create_model, save_model
from diascope.models.black_box import BlackBox

EFFORT = {  # every stage is run; each is tried harder in tests of its own
    "attacks": ("pgd", "apgd", "square"),
    "attack_images": 16,
    "queries": 10,
    "masking_images": 8,
    "masking_steps": 3,
    "masking_queries": 10,
    "corruption_images": 16,
    "severities": (3,),
    "operating_steps": 3,
    "explainers": ("gradient", "smoothgrad"),
    "faithfulness_images": 2,
    "steadiness_images": 4,
    "sanity_images": 2,
}
SETTINGS = AuditSettings(
    norm="linf",
    epsilons=(0.015, 0.3),
    replicates=200,
    cases=4,
    attack={"name": "pgd", "steps": 3},
    effort=EFFORT,
)


@pytest.fixture
def dataset():
    return squares()


def two_subjects():
    noisy = torch.Generator().manual_seed(0)
    fragile = Eyes(1.0)
    fragile.weight.data += torch.randn(fragile.weight.shape, generator=noisy) * 0.3
    robust = Eyes(4.0)
    return [
        Subject("fragile", fragile, None, fragile.card),
        Subject("robust", robust, None, robust.card),
    ]


@pytest.fixture(scope="module")
def audited(tmp_path_factory):
    """The results of both subjects, and the folder that they were written to."""
    folder, subjects = tmp_path_factory.mktemp("audited"), two_subjects()
    test = unseen_pixels(squares(), subjects, SETTINGS, cache=folder / "cache")
    return audit(subjects, test, SETTINGS, folder, title="T"), folder


def test_the_numbers_are_those_of_a_known_task(audited):
    results, folder = audited
    fragile, robust = results.models
    assert robust.scores["accuracy"][0] == 1
    assert robust.curve[1][0] == 1  # a change of 0.015 does not move the squares
    assert robust.curve[2][0] < 0.05  # one of 0.3 inverts them
    assert fragile.curve[1][0] < robust.curve[1][0]
    assert results.epsilons == [0.0, 0.015, 0.3]
    ap = robust.localisation["average_precision"]
    assert ap.value[0] == pytest.approx(0.5, abs=0.01)  # it weighs both places alike
    assert ap.chance[0] == pytest.approx(16 / 256, abs=1e-4)
    assert robust.localisation["mass_inside"].value[0] == pytest.approx(0.5, abs=1e-4)
    (comparison,) = results.comparisons
    assert comparison.model == "robust"
    assert comparison.reference == "fragile"
    value, low, high = comparison.localisation["average_precision"]
    expected = ap.value[0] - fragile.localisation["average_precision"].value[0]
    assert value == pytest.approx(expected, abs=1e-6)
    assert 0 < low <= value <= high
    for score in ("accuracy", "balanced_accuracy", "auroc"):
        difference = robust.scores[score][0] - fragile.scores[score][0]
        assert comparison.scores[score][0] == pytest.approx(difference, abs=1e-9)
    assert comparison.curve[1][0] == pytest.approx(robust.curve[1][0] - fragile.curve[1][0])
    assert any(f.check == "fragility" and "fragile" in f.title for f in results.findings)
    table = pd.read_parquet(folder / "tables" / "robust.parquet")
    assert (table.minimal_epsilon > 0.015).mean() == robust.curve[1][0]
    assert table.average_precision.isna().sum() == 4  # no mask: undefined, not a miss


class Striped(Eyes):
    """Wrong in stripes of brightness: a full step often jumps over what a half step meets."""

    def forward(self, x):
        wave = torch.sin(super().forward(x)[:, 0] * 16.5)
        return torch.stack([wave, -wave], 1)


def test_no_case_contradicts_the_curve(dataset, tmp_path):
    striped = Striped(1.0)
    subject = Subject("striped", striped, None, striped.card)
    settings = SETTINGS.model_copy(
        update={"epsilons": (0.0, 0.01, 0.05, 0.2), "cases": COUNT, "shown_epsilons": 3}
    )
    test = unseen_pixels(dataset, [subject], settings, cache=tmp_path / "cache")
    results = audit([subject], test, settings, tmp_path)
    told = {}
    for case in results.cases:
        (view,) = case.views
        for seen in view.attacked:
            broken = seen.prediction != case.label
            told.setdefault(view.minimal_epsilon <= seen.eps, []).append(broken)
    assert len(told[True]) > 20
    assert all(told[True])
    attack = at_eps(settings.build_attack(), 0.2)
    x_adv = attack(striped, test.pixels.x(), test.pixels.y())
    minimal = pd.read_parquet(tmp_path / "tables" / "striped.parquet").minimal_epsilon
    missed = ~verdict(striped, x_adv, test.pixels.y()).numpy() & (minimal <= 0.2).to_numpy()
    assert missed.any()  # else this test would show nothing


def test_the_json_is_complete_and_has_no_nan(audited):
    results, folder = audited
    written = json.loads((folder / "results.json").read_text())
    assert written["schema"] == "diascope-results-2"
    assert written["data"]["images"] == COUNT
    assert written["data"]["groups"] == 15
    assert written["settings"]["images"] is None
    assert written["attack"]["random_start"] is True
    assert "cases" not in written
    endless = replace(results.models[0], median_epsilon=float("inf"))
    assert replace(results, models=[endless]).to_json()["models"][0]["median_epsilon"] is None


def test_cases_show_what_the_models_see(audited):
    results, _ = audited
    assert len(results.cases) == 4
    assert sorted(case.label for case in results.cases) == ["left", "left", "right", "right"]
    for case in results.cases:
        assert case.image.shape == (SIDE, SIDE, 3)
        np.testing.assert_array_equal(case.image, Squares().image(case.id))
        assert (case.mask is None) == (int(case.id) < 4)
        for view in case.views:
            assert [a.eps for a in view.attacked] == [0.015, 0.3]
            for seen in view.attacked:
                assert np.abs(seen.perturbation).max() <= seen.eps + 1e-6
                shown = (seen.image.astype(float) - case.image) / 255
                assert (np.abs(shown) <= np.abs(seen.perturbation) + 1e-4).all()
                assert np.abs(shown - seen.perturbation).max() < 1 / 255
                right = seen.prediction == case.label
                assert right == (view.minimal_epsilon > seen.eps)  # as the curve says


class Mute(Eyes):
    """Returns nothing that can be read."""

    def forward(self, x):
        return super().forward(x) * float("nan")


def test_an_earlier_audit_stays_until_there_is_another(dataset, tmp_path, monkeypatch):
    monkeypatch.setattr(plan, "in_order", lambda: [("predictions", STAGES["predictions"])])

    def files():
        return {f.relative_to(tmp_path): f.read_bytes() for f in kept if f.exists()}

    def run(eyes, name):
        subject = Subject(name, eyes, None, eyes.card)
        test = unseen_pixels(dataset, [subject], settings, cache=tmp_path / "cache")
        return audit([subject], test, settings, tmp_path)

    kept = [tmp_path / n for n in ("results.json", "report.html", "tables/first.parquet")]
    settings = SETTINGS.model_copy(update={"cases": 0, "data_checks": False, "epsilons": (0.0,)})
    run(Eyes(1.0), "first")
    kept[1].write_text("the report of the first")
    before = files()
    assert len(before) == 3
    with pytest.raises(UserError, match="gives no predictions"):
        run(Mute(1.0), "second")
    assert files() == before
    assert run(Eyes(4.0), "third").tables == {"third": "tables/third.parquet"}
    after = files()
    assert list(after) == [kept[0].relative_to(tmp_path)]
    assert after != before
    assert [f.name for f in (tmp_path / "tables").iterdir()] == ["third.parquet"]
    assert not (tmp_path / ".tables").exists()


def test_every_image_that_a_black_box_is_asked_about_is_counted(dataset, tmp_path, monkeypatch):
    names = ("predictions", "corruptions")
    monkeypatch.setattr(plan, "in_order", lambda: [(n, STAGES[n]) for n in names])
    asked, eyes = [], Eyes(4.0)

    def answers(images):
        asked.append(len(images))
        return eyes(torch.from_numpy(images)).detach().numpy()

    def run():
        box = BlackBox(answers, "eyes", ["left", "right"])
        face = Interface("callable", False, "logits", 3, SIDE, "RGB", True)
        subject = Subject("box", box, None, eyes.card, face)
        settings = SETTINGS.model_copy(update={"cases": 1, "shown_epsilons": 1})
        test = unseen_pixels(dataset, [subject], settings, cache=tmp_path / "cache")
        return audit([subject], test, settings, tmp_path)

    first = run()
    assert first.models[0].queries == sum(asked)
    predictions, corruptions = first.stages
    assert predictions.queries == COUNT
    assert corruptions.queries == 9 * 16  # corruptions at one severity, of so many images
    asked.clear()
    again = run()
    assert [stage.queries for stage in again.stages] == [COUNT, 9 * 16]
    assert again.models[0].queries == sum(asked) + COUNT + 9 * 16  # with those that are read back
    assert Subject("eyes", eyes, None, eyes.card).queries == 0


def test_does_not_depend_on_batch_size(dataset, audited, tmp_path):
    whole = pd.read_parquet(audited[1] / "tables" / "fragile.parquet")
    settings, subjects = SETTINGS.model_copy(update={"batch_size": 23}), two_subjects()
    test = unseen_pixels(dataset, subjects, settings, cache=tmp_path / "cache")
    audit(subjects, test, settings, tmp_path)
    parts = pd.read_parquet(tmp_path / "tables" / "fragile.parquet")
    pd.testing.assert_frame_equal(whole, parts, rtol=1e-4, atol=1e-5)


def test_what_a_model_was_trained_on_is_left_out(dataset):
    def subject(paths, groups, splits, name="squares"):
        table = pd.DataFrame({"path": paths, "group": groups, "split": splits})
        eyes = Eyes(1.0)
        eyes.card["data"] = {"name": name}
        return Subject("m", eyes, table if len(paths) else None, eyes.card)

    def allowed(*subjects):
        return unseen(dataset, subjects).rows

    trained = subject(["0", "8"], ["g0", "g2"], ["train", "val"])
    assert not allowed(trained)[:4].any()  # the group of image 0
    assert not allowed(trained)[8:12].any()
    assert allowed(trained)[4:8].all()
    assert allowed(trained)[12:].all()
    assert unseen(dataset, [trained]).left_out["seen in training or validation"] == 8
    tested = subject(["0", "8"], ["g0", "g2"], ["train", "test"])
    assert np.flatnonzero(allowed(tested)).tolist() == [8]
    layout = subject(["x/0", "x/8"], ["g0", "g2"], ["train", "test"])  # other paths, same lesions
    assert np.flatnonzero(allowed(layout)).tolist() == [8, 9, 10, 11]
    moved = subject(["elsewhere/0.jpg"], ["g0"], ["train"])  # the same lesion in another layout
    assert not allowed(moved)[:4].any()
    with pytest.raises(UserError, match="every image was used"):
        unseen(dataset, [trained, subject(["0", "8"], ["g0", "g2"], ["test", "train"])])
    with pytest.raises(UserError, match="split.csv is not beside it"):
        unseen(dataset, [subject([], [], [])])
    elsewhere = subject(["0"], ["g0"], ["train"], name="other")  # another hospital's image 0
    assert allowed(elsewhere).all()
    assert allowed(subject([], [], [], name="other")).all()


def test_pictures_seen_under_another_name_are_left_out(dataset):
    eyes = Eyes(4.0)
    pixels = load_pixels(dataset, SIDE, Preprocess.model_validate(eyes.card["preprocess"]))
    contents = pixels.fingerprints()
    assert len(set(contents)) == COUNT
    assert pixels.take([5, 3]).fingerprints() == [contents[5], contents[3]]
    table = pd.DataFrame({"path": ["a", "b", "c"], "group": "", "split": ["train", "val", "test"]})

    def audited(rows):
        eyes.card["data"] = {"name": "the same files, called otherwise"}
        split = table.assign(content=[contents[i] for i in rows])
        return unseen_pixels(dataset, [Subject("m", eyes, split, eyes.card)], SETTINGS)

    test = audited([4, 9, 11])
    assert len(test.pixels) == COUNT - 2
    assert not {contents[4], contents[9]} & set(test.pixels.fingerprints())
    assert test.left_out["the same picture as one seen in training or validation"] == 2
    old = Subject("m", eyes, table, eyes.card)  # a split file written without fingerprints
    assert len(unseen_pixels(dataset, [old], SETTINGS).pixels) == COUNT


def test_models_that_do_not_fit_together_are_refused(tmp_path):
    model = create_model("resnet18", 2, **TINY)
    card = {"classes": ["a", "b"], "size": 32, "preprocess": {"crop": "none", "channels": 3}}
    for name, change in [("one", {}), ("two", {"size": 64}), ("three", {"classes": None})]:
        kept = {k: v for k, v in {**card, **change}.items() if v is not None}
        save_model(model, tmp_path / name / "model.safetensors", **kept)
    assert [s.name for s in open_subjects([tmp_path / "one"])] == ["one"]
    with pytest.raises(UserError, match="size"):
        open_subjects([tmp_path / "one", tmp_path / "two"])
    with pytest.raises(UserError, match="does not say 'classes'"):
        open_subjects([tmp_path / "three"])
    with pytest.raises(UserError, match="called 'one'"):
        open_subjects([tmp_path / "one", tmp_path / "one"])


def test_the_draw_of_cases_is_even_over_classes_and_ignores_row_order(dataset, tmp_path):
    pixels = load_pixels(dataset, SIDE, cache=tmp_path)
    rows = choose(pixels, 10, seed=0)
    assert np.bincount(dataset.labels[rows]).tolist() == [5, 5]
    order = np.random.default_rng(0).permutation(COUNT)
    shuffled = load_pixels(dataset.take(order), SIDE, cache=tmp_path)
    again = choose(shuffled, 10, seed=0)
    assert set(shuffled.dataset.ids[again]) == set(dataset.ids[rows])
    assert set(choose(pixels, 10, seed=1)) != set(rows)
    assert len(choose(pixels, 1000, seed=0)) == COUNT


def test_shown_epsilons_are_spread_and_hold_the_largest():
    assert shown_epsilons([0, 0.1, 0.2, 0.4, 0.8], 2) == [0.1, 0.8]
    assert shown_epsilons([0, 0.1, 0.2, 0.4, 0.8], 9) == [0.1, 0.2, 0.4, 0.8]
    assert shown_epsilons([0.0], 3) == []


def test_settings_refuse_nonsense():
    for bad in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="epsilons"):
            AuditSettings(epsilons=(bad,))
    assert AuditSettings(epsilons=(0.5, 0.1)).grid(64) == (0.0, 0.1, 0.5)
    assert AuditSettings(norm="l2").grid(224) == (0.0, 0.5, 1, 2, 4, 8)
    assert AuditSettings(norm="l2").grid(112) == (0.0, 0.25, 0.5, 1, 2, 4)
    with pytest.raises(UserError, match="stesp"):
        AuditSettings(attack={"name": "pgd", "stesp": 3}).build_attack()
