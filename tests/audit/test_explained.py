"""Explained image files: what is measured of which map, and that nothing is lost."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tests.nets import small_net

from diascope.audit import Subject
from diascope.audit.cases import cases
from diascope.audit.explained import ExplanationOfFiles, fitting, prepared_masks
from diascope.audit.mapmeasures import MapMeasures
from diascope.audit.measure import maps
from diascope.audit.settings import AuditSettings
from diascope.data import Dataset, Preprocess, load_pixels
from diascope.errors import UserError
from diascope.evaluation import predict
from diascope.evaluation.measures import members
from diascope.explain import Gradient, SmoothGrad, explainers, rectify, render
from diascope.report.explained import write_grids
from diascope.report.grid import DPI

SIDE = 16
FILES = ["a.png", "b.png", "c.png"]


def subject(name: str = "m", classes: int = 3, channels: int = 3, outputs: int = 0, seed: int = 0):
    card = {
        "classes": [f"class {k}" for k in range(classes)],
        "size": SIDE,
        "preprocess": Preprocess(channels=channels).model_dump(),
    }
    return Subject(name, small_net(outputs or classes, channels, seed=seed), None, card)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for name in FILES:
        Image.fromarray(draw.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(name)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[4:12, 4:12] = 255
    Image.fromarray(mask).save("mask.png")
    return tmp_path


def read(out):
    return json.loads((out / "results.json").read_text())


def test_the_measures_of_a_row_are_those_of_its_map(place):
    own, other = subject("m"), subject("n", seed=1)
    methods = {"gradient": Gradient(precision="float32")}
    work = ExplanationOfFiles([own, other], methods, place / "out")
    found = work(FILES, ["mask.png", None, "mask.png"])
    x = found.images.float() / 255
    heats = []
    for each in (own, other):
        y = each.model(x).argmax(1)
        raw = Gradient(precision="float32")(each.model, x, y)
        heats.append(rectify(raw))
        shown = found.heats[each.name]["gradient"].float() / 255
        torch.testing.assert_close(shown, render(raw), atol=0.5 / 255 + 1e-3, rtol=0)
    for i, row in enumerate(read(place / "out")["images"]):
        for each, heat in zip((own, other), heats, strict=True):
            of = row["models"][each.name]["maps"]["gradient"]
            for name, measure in members("sharpness").items():
                assert of["sharpness"][name] == pytest.approx(measure(heat)[i].item(), rel=1e-3)
            assert (of["localisation"]["mass_inside"] is None) == (i == 1)
            for name, measure in members("colour").items():
                value = measure(heat, x, found.masks)[i].item()
                told = of["colour"][name]
                assert told == pytest.approx(value, abs=1e-3) if i != 1 else told is None
        assert "agreement" not in row["models"]["m"]["maps"]["gradient"]
        agreement = row["models"]["n"]["maps"]["gradient"]["agreement"]
        for name, measure in members("agreement").items():
            wanted = measure(heats[1], heats[0])[i].item()
            assert agreement[name] == pytest.approx(wanted, abs=1e-3)


def test_what_is_done_is_kept_when_the_rest_fails(place, monkeypatch):
    monkeypatch.setattr("diascope.audit.explained.AT_ONCE", 2)
    calls = []

    class Fails(SmoothGrad):
        def __call__(self, *arguments, **options):
            calls.append(1)
            if len(calls) == 2:
                raise RuntimeError("the power is cut")
            return super().__call__(*arguments, **options)

    methods = {"smoothgrad": Fails(samples=2)}
    monkeypatch.setattr("diascope.audit.explained.to_settings", lambda method: {"name": "x"})
    with pytest.raises(RuntimeError, match="power"):
        ExplanationOfFiles([subject()], methods, place / "out")(FILES)
    results = read(place / "out")
    assert results["complete"] is False
    assert [row["image"] for row in results["images"]] == ["a.png", "b.png"]
    for row in results["images"]:
        for kind in ("map", "overlay", "raw"):
            assert (place / "out" / row["models"]["m"]["maps"]["smoothgrad"][kind]).exists()


def test_progress_goes_up_to_every_map_of_every_model(place):
    told: list[tuple[int, int]] = []
    methods = {"gradient": Gradient(), "smoothgrad": SmoothGrad(samples=2)}
    work = ExplanationOfFiles([subject("m"), subject("n")], methods, place / "out")
    work(FILES, progress=lambda done, total: told.append((done, total)))
    assert told == [(3, 12), (6, 12), (9, 12), (12, 12)]
    asked = replace(work, out=place / "again", measures=MapMeasures.of(["deletion"]))
    told.clear()
    asked(FILES, progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (24, 24)


@pytest.mark.parametrize(("classes", "outputs", "channels"), [(2, 1, 3), (3, 3, 1)])
def test_single_logits_and_grey_images_are_explained(place, classes, outputs, channels):
    own = subject(classes=classes, outputs=outputs, channels=channels)
    work = ExplanationOfFiles([own], {"gradient": Gradient()}, place / "out", target=0)
    found = work(FILES)
    assert found.images.shape == (3, channels, SIDE, SIDE)
    row = read(place / "out")["images"][0]["models"]["m"]
    assert len(row["probabilities"]) == classes
    raw = np.load(place / "out" / row["maps"]["gradient"]["raw"])
    assert raw.shape == (channels, SIDE, SIDE)
    (grid,) = write_grids(found, place / "out")
    assert grid.name == "grid.png"


def test_many_images_are_spread_over_pages(place, monkeypatch):
    monkeypatch.setattr("diascope.report.explained.ROWS", 2)
    found = ExplanationOfFiles([subject()], {"gradient": Gradient()}, place / "out")(FILES)
    pages = write_grids(found, place / "out")
    assert [page.name for page in pages] == ["grid.png", "grid-2.png"]
    sizes = []
    for page in pages:
        with Image.open(page) as picture:
            sizes.append(picture.size)
    assert abs(sizes[0][0] - sizes[1][0]) < 5  # the breadth of the names
    assert sizes[0][1] - sizes[1][1] > DPI


def test_outputs_that_do_not_fit_the_classes_are_a_mistake(place):
    work = ExplanationOfFiles([subject(outputs=5)], {"gradient": Gradient()}, place / "out")
    with pytest.raises(UserError, match="5 outputs do not fit 3 classes"):
        work(FILES)


def test_a_mask_is_seen_as_the_model_sees_its_image(place):
    Image.fromarray(np.zeros((SIDE, 2 * SIDE, 3), np.uint8)).save("wide.png")
    wide = np.zeros((SIDE, 2 * SIDE), np.uint8)
    wide[:, : SIDE // 2 + 4] = 1  # the crop keeps the columns from SIDE / 2 on
    Image.fromarray(wide).save("wide-mask.png")
    masks = prepared_masks(
        ["a.png", "wide.png", "b.png"], ["mask.png", "wide-mask.png", None], subject()
    )
    assert masks[0].sum() == 64
    assert masks[1, :, :4].all()
    assert not masks[1, :, 4:].any()
    assert not masks[2].any()
    assert prepared_masks(FILES, [], subject()) is None
    assert prepared_masks(FILES, [None] * 3, subject()) is None


def test_methods_that_do_not_fit_a_model_are_left_out_with_their_reason(place):
    class Needy(Gradient):
        needs = "soft attention"

        def __call__(self, *arguments, **options):
            raise UserError("has no attention")

    kept, left_out = fitting({"gradient": Gradient(), "needy": Needy()}, [subject()], "a.png")
    assert list(kept) == ["gradient"]
    assert left_out == {"needy": "has no attention"}


def test_measures_are_asked_for_by_family_or_by_name():
    usual = MapMeasures.of([])
    assert "faithfulness" not in usual.families
    assert usual.chosen("faithfulness") == {}
    assert usual.chosen("localisation").keys() == members("localisation").keys()
    whole = MapMeasures.of(["faithfulness", "deletion"])
    assert whole.chosen("faithfulness").keys() == members("faithfulness").keys()
    one = MapMeasures.of(["deletion", "pointing"])
    assert list(one.chosen("faithfulness")) == ["deletion"]
    assert one.chosen("localisation").keys() == members("localisation").keys()
    assert one.described()["deletion"]["family"] == "faithfulness"
    with pytest.raises(UserError, match="did you mean 'deletion'"):
        MapMeasures.of(["delition"])
    with pytest.raises(UserError, match="no measure of maps"):
        MapMeasures.of(["energy_inside"])  # of perturbations


class Noise:
    """A reader of random images with a square mask."""

    def image(self, path):
        return np.random.default_rng(int(path)).integers(0, 256, (SIDE, SIDE, 3), np.uint8)

    def mask(self, path):
        mask = np.zeros((SIDE, SIDE), bool)
        mask[4:12, 4:12] = True
        return mask

    def stamp(self, path):
        return path


@pytest.mark.parametrize("name", [n for n in explainers.names() if n != "soft_attention"])
def test_an_audit_measures_and_shows_the_map_of_any_explainer(name):
    cheap = {"steps": 2, "samples": 2, "patch": 8, "stride": 4}
    known = explainers[name].__dataclass_fields__
    settings = AuditSettings(
        explainer={"name": name, "precision": "float32"}
        | {key: value for key, value in cheap.items() if key in known},
        epsilons=(0.01,),
        attack={"name": "pgd", "steps": 1},
        cases=3,
    )
    columns = {
        "path": [str(i) for i in range(3)],
        "label": ["a", "b", "c"],
        "group": [str(i) for i in range(3)],
        "mask": [str(i) for i in range(3)],
    }
    dataset = Dataset.of("noise", columns, ["a", "b", "c"], Noise())
    pixels, model, device = load_pixels(dataset, SIDE), small_net(), torch.device("cpu")
    rows = np.arange(3)
    measured = maps(model, pixels, rows, settings, device)
    assert measured.shape == (3, SIDE, SIDE)
    assert measured.min() >= 0
    table = predict(model, pixels).assign(minimal_epsilon=np.inf)
    for case, own in zip(
        cases({"m": model}, {"m": table}, pixels, settings, device), measured, strict=True
    ):
        (view,) = case.views
        capped = render(own[None, None]).numpy()[0]
        np.testing.assert_allclose(view.heat, capped, atol=2e-3)
        assert view.heat.max() <= 1
