"""`diascope explain` as its users meet it: files, numbers, one line for a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from diascope.data import Preprocess
from diascope.data.readers import FileReader
from diascope.explain import Gradient, explainers, render
from diascope.explain.colours import colourise
from diascope.models import create_model, load_model, save_model

CLASSES = ["bkl", "mel", "nv"]
FILES = ["a.png", "b.png", "deep/a.png"]
NAMES = ["a", "b", "a-2"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with two models at 24x24, images of 40x30, and a mask of the first."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "deep").mkdir()
    draw = np.random.default_rng(0)
    for name in FILES:
        coarse = draw.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((40, 30)).save(folder / name)
    mask = np.zeros((30, 40), np.uint8)
    mask[5:20, 10:25] = 255
    Image.fromarray(mask).save(folder / "mask.png")
    Image.fromarray(mask[:20]).save(folder / "small.png")
    (folder / "text.png").write_text("no image")
    options = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
    for seed, name in enumerate(("m", "n")):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = create_model("resnet18", 3, **options).eval()
        card = {"classes": CLASSES, "size": 24, "preprocess": Preprocess().model_dump()}
        save_model(model, folder / name / "model.safetensors", **card)
    return folder


def prepared(folder):
    reader = FileReader(folder)
    pixels = [Preprocess().image(reader.image(name), 24) for name in FILES]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div(255)


def pixels(path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def read(out):
    return json.loads((out / "results.json").read_text())


def test_maps_overlays_raw_attributions_and_numbers_are_written(diascope, place, tmp_path):
    out = tmp_path / "out"
    masks = ("--mask", "mask.png", "--mask", "", "--mask", "mask.png")
    done = diascope(
        "explain", "m", *FILES, *masks, "--precision", "float32", "--out", out, cwd=place
    )
    assert done.returncode == 0, done.stderr
    expected = {f"{folder}/{name}-gradient{suffix}" for name in NAMES for folder, suffix in
                (("maps", ".png"), ("overlays", ".png"), ("raw", ".npy"))}  # fmt: skip
    found = {f.relative_to(out).as_posix() for f in out.rglob("*") if f.is_file()}
    assert found == expected | {"grid.png", "results.json"}

    model, x = load_model(place / "m"), prepared(place)
    p = model(x).softmax(1)
    raw = Gradient(precision="float32")(model, x, p.argmax(1))
    heat = render(raw)
    results = read(out)
    assert results["complete"] is True
    assert results["methods"]["gradient"]["precision"] == "float32"
    assert "diascope explain m" in results["command"]
    for i, row in enumerate(results["images"]):
        seen = row["models"]["m"]
        assert (row["image"], row["name"]) == (FILES[i], NAMES[i])
        assert seen["prediction"] == seen["explained"] == CLASSES[p[i].argmax()]
        assert list(seen["probabilities"].values()) == pytest.approx(p[i].tolist(), abs=1e-5)
        of = seen["maps"]["gradient"]
        values = np.load(out / of["raw"])
        assert (values.dtype, values.shape) == (np.float32, (3, 24, 24))
        np.testing.assert_allclose(values, raw[i].numpy(), atol=1e-5 * float(raw[i].abs().max()))
        shown = colourise(heat[i : i + 1], "viridis")[0].permute(1, 2, 0).numpy()
        assert np.abs(pixels(out / of["map"]).astype(int) - shown).max() <= 6
        assert pixels(out / of["overlay"]).shape == (336, 336, 3)
        place_of = of["localisation"]
        inside = Preprocess().mask(FileReader(place).mask("mask.png"), 24)
        if i == 1:
            assert place_of["mass_inside"] is None
        else:
            rectified = raw[i].abs().sum(0).numpy()
            share = rectified[inside].sum() / rectified.sum()
            assert place_of["mass_inside"] == pytest.approx(share, rel=1e-3)
            assert place_of["mass_inside_chance"] == pytest.approx(inside.mean())
            assert place_of["mass_inside_centre"] > inside.mean()
    lines = done.stdout.splitlines()
    assert [line.split(":")[0] for line in lines] == FILES
    assert "inside the mask: gradient 0." in lines[0]
    assert "explaining: 3/3" in done.stderr


def test_several_methods_and_models_at_once(diascope, place, tmp_path):
    out = tmp_path / "out"
    methods = ("--method", "gradient", "--method", "smoothgrad", "--method", "integrated_gradients")
    settings = ("smoothgrad.samples=2", "steps=3")
    words = ("explain", "m", "a.png", "b.png", *settings, "--also", "n", *methods, "--out", out)
    done = diascope(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    results = read(out)
    assert results["methods"]["smoothgrad"]["samples"] == 2
    assert results["methods"]["integrated_gradients"]["steps"] == 3
    assert [m["name"] for m in results["models"]] == ["m", "n"]
    for row in results["images"]:
        for name, seen in row["models"].items():
            assert list(seen["maps"]) == ["gradient", "smoothgrad", "integrated_gradients"]
            for method, of in seen["maps"].items():
                assert of["map"] == f"maps/{name}/{row['name']}-{method}.png"
                assert all((out / of[kind]).exists() for kind in ("map", "overlay", "raw"))
                assert "localisation" not in of
            total = np.load(out / seen["maps"]["integrated_gradients"]["raw"]).sum()
            told = seen["maps"]["integrated_gradients"]["completeness"]
            assert told["total"] == pytest.approx(total, rel=1e-3, abs=1e-4)
            gap = abs(told["total"] - told["due"]) / abs(told["due"])
            assert told["gap"] == pytest.approx(gap, rel=1e-2, abs=1e-5)
            assert "completeness" not in seen["maps"]["gradient"]
    first, second = results["images"][0]["models"].values()
    one, other = (np.load(out / each["maps"]["gradient"]["raw"]) for each in (first, second))
    assert not np.allclose(one, other)
    wide = pixels(out / "grid.png").shape[1]
    assert (
        diascope(*words[:-1], tmp_path / "narrow", "--method", "gradient", cwd=place).returncode
        == 0
    )
    alone = tmp_path / "alone"
    assert diascope("explain", "m", "a.png", "--out", alone, cwd=place).returncode == 0
    assert pixels(alone / "grid.png").shape[1] < wide


def test_a_map_belongs_to_seed_and_image(diascope, place, tmp_path):
    def raw(name, *words):
        words = ("explain", "m", *words, "--method", "smoothgrad", "samples=2")
        done = diascope(*words, "--precision", "float32", "--out", tmp_path / name, cwd=place)
        assert done.returncode == 0, done.stderr
        return np.load(tmp_path / name / "raw" / "b-smoothgrad.npy")

    together, alone = raw("t", *FILES), raw("l", place / "b.png")
    size = np.abs(alone).max()
    np.testing.assert_allclose(together, alone, atol=1e-4 * size)
    assert np.abs(raw("o", "b.png", "--seed", 1) - alone).max() > 0.05 * size


def test_the_target_is_the_one_given_and_faithfulness_is_measured_on_request(
    diascope, place, tmp_path
):
    model, x = load_model(place / "m"), prepared(place)
    out = tmp_path / "out"
    words = ("--target", "mel", "--measures", "faithfulness", "--precision", "float32")
    done = diascope("explain", "m", *FILES, *words, "--out", out, cwd=place)
    assert done.returncode == 0, done.stderr
    wanted = Gradient(precision="float32")(model, x, 1)
    for i, row in enumerate(read(out)["images"]):
        seen = row["models"]["m"]
        assert seen["explained"] == "mel"
        raw = np.load(out / seen["maps"]["gradient"]["raw"])
        np.testing.assert_allclose(raw, wanted[i].numpy(), atol=1e-5 * float(wanted.abs().max()))
        numbers = seen["maps"]["gradient"]["faithfulness"]
        assert {"insertion", "deletion"} <= set(numbers)
        assert all(value is None or np.isfinite(value) for value in numbers.values())
        assert ("(explained: mel)" in done.stdout.splitlines()[i]) == (seen["prediction"] != "mel")


def test_one_measure_may_be_asked_for(diascope, place, tmp_path):
    out = tmp_path / "out"
    done = diascope("explain", "m", "a.png", "--measures", "deletion", "--out", out, cwd=place)
    assert done.returncode == 0, done.stderr
    of = read(out)["images"][0]["models"]["m"]["maps"]["gradient"]
    assert set(of["faithfulness"]) == {"deletion"}
    assert read(out)["measures"]["deletion"]["family"] == "faithfulness"


def test_all_is_every_method_that_fits(diascope, place, tmp_path):
    out = tmp_path / "out"
    small = [f"{name}.{setting}" for name, setting in
             (("integrated_gradients", "steps=2"), ("smoothgrad", "samples=2"),
              ("occlusion", "patch=12"), ("occlusion", "stride=6"))
             if name in explainers.names()]  # fmt: skip
    done = diascope("explain", "m", "a.png", *small, "--method", "all", "--out", out, cwd=place)
    assert done.returncode == 0, done.stderr
    given = set(read(out)["images"][0]["models"]["m"]["maps"])
    left_out = {name for name in explainers.names() if f"{name} is left out: " in done.stderr}
    assert given | left_out == set(explainers.names())
    assert {"gradient", "smoothgrad", "integrated_gradients"} <= given
    assert "gradcam" not in explainers.names() or "gradcam" in given
    if "soft_attention" in explainers.names():
        assert left_out == {"soft_attention"}


def test_doubts_are_told_in_one_line_each(diascope, place, tmp_path, monkeypatch):
    own = Gradient.__call__

    def doubtful(*arguments, **options):
        warnings.warn("the sum\nmisses", UserWarning, stacklevel=1)
        return own(*arguments, **options)

    monkeypatch.setattr(Gradient, "__call__", doubtful)
    words = ("explain", "m", "a.png", "--also", "n", "--out", tmp_path / "out")
    done = diascope(*words, cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning: the sum misses\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere", "a.png"), "no model here"),
        (("m", "none.png"), "none.png: there is no such file"),
        (("m", "text.png"), "text.png: is not an image"),
        (("m", "deep"), "deep: is a folder"),
        (("m", "samples=1"), "no image is given"),
        (
            ("m", "a.png", "--method", "gradint"),
            "unknown method 'gradint': did you mean 'gradient'?",
        ),
        (("m", "a.png", "steps=3"), "no chosen method has 'steps': known: "),
        (("m", "a.png", "times_inputs=3"), "did you mean 'times_input'?"),
        (("m", "a.png", "gradeint.of=logit"), "did you mean 'gradient'?"),
        (("m", "a.png", "of=much"), "method gradient.of: 'much'"),
        (("m", "a.png", "--precision", "bf61"), "--precision bf61: did you mean 'bf16'?"),
        (("m", "a.png", "--target", "mle"), "--target mle: no class of m; did you mean 'mel'?"),
        (("m", "a.png", "--colours", "jet"), "--colours jet: known: "),
        (("m", "a.png", "--over", "gray"), "did you mean 'grey'?"),
        (("m", "a.png", "--measures", "insrtion"), "did you mean 'insertion'?"),
        (("m", "a.png", "b.png", "--mask", "mask.png"), "1 masks for 2 images"),
        (
            ("m", "a.png", "--mask", "small.png"),
            "small.png: is 40x20 pixels, and its image a.png is",
        ),
        (("m", "a.png", "--mask", "none.png"), "none.png: there is no such file"),
        (("m", "a.png", "--also", "m"), "two models are called 'm'"),
        (("m", "a.png", "--out", "deep"), "--out deep: holds other files"),
        (("m", "a.png", "--out", "a.png"), "--out a.png: cannot be written"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(diascope, place, words, message):
    done = diascope("explain", *words, cwd=place)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (place / "explain").exists()


def test_help_names_every_method_and_does_not_import_torch():
    code = (
        "import sys\nfrom diascope.cli.main import app\n"
        "sys.argv = ['diascope', 'explain', '--help']\n"
        "try:\n    app()\nexcept SystemExit:\n    sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "COLUMNS": "300"},
    )
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in explainers.names())
    assert all(word in done.stdout for word in ("--mask", "--also", "--target", "viridis"))
