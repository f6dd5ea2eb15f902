"""`diascope attack` as its users meet it: real processes, files, one line for a mistake."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from diascope.attacks.base import attacks, verdict
from diascope.attacks.saving import read_images
from diascope.data import Preprocess
from diascope.data.readers import FileReader
from diascope.models import create_model, load_model, save_model

CLASSES = ["bkl", "mel", "nv"]
FILES = ["a.png", "b.png", "deep/a.png"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model at 24x24 whose images stand near an edge, and images of 40x30."""
    folder = tmp_path_factory.mktemp("place")
    (folder / "deep").mkdir()
    draw = np.random.default_rng(0)
    for name in FILES:
        coarse = draw.integers(0, 256, (6, 8, 3), np.uint8)
        Image.fromarray(coarse).resize((40, 30)).save(folder / name)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = create_model("resnet18", 3, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8]).eval()
    x = prepared(folder)
    with torch.no_grad():
        model.backbone.fc.weight.mul_(10)
        model.backbone.fc.bias.sub_(model(x).mean(0))
    card = {"classes": CLASSES, "size": 24, "preprocess": Preprocess().model_dump()}
    save_model(model, folder / "m" / "model.safetensors", **card)
    return folder


def prepared(folder):
    reader = FileReader(folder)
    pixels = [Preprocess().image(reader.image(name), 24) for name in FILES]
    return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).float().div(255)


def test_what_is_written_is_what_was_said(place, tmp_path, fork):
    out = tmp_path / "out"
    words = ("attack", "m", *FILES, "--norm", "linf", "--eps", "8/255", "--steps", 5)
    done = fork(*words, "--out", out, "step_size=0.01", cwd=place)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    rows = results["images"]
    assert [row["image"] for row in rows] == FILES
    assert results["attack"]["eps"] == 8 / 255
    assert (results["attack"]["steps"], results["attack"]["step_size"]) == (5, 0.01)
    assert results["seed"] == 0
    assert results["model"]["classes"] == CLASSES
    assert set(results["versions"]) >= {"diascope", "torch"}
    assert "diascope attack m" in results["command"]

    model, x = load_model(place / "m"), prepared(place)
    clean = model(x).softmax(1)
    y = clean.argmax(1)
    assert [row["label"] for row in rows] == [CLASSES[k] for k in y]
    for key, folder in (("after", "exact"), ("after_8_bits", "adversarial")):
        names, x_adv = read_images(out / folder, ["a", "b", "a-2"])
        broken = verdict(model, x_adv, y)
        assert broken.any()
        assert [row[key]["broken"] for row in rows] == broken.tolist()
        p = model(x_adv).softmax(1)
        for i, row in enumerate(rows):
            seen = row[key]
            assert seen["file"].startswith(f"{folder}/{names[i]}.")
            assert (out / seen["file"]).exists()
            assert seen["prediction"] == CLASSES[p[i].argmax()]
            assert list(seen["probabilities"].values()) == pytest.approx(p[i].tolist(), abs=1e-5)
            assert seen["linf"] == pytest.approx((x_adv - x)[i].abs().max().item(), abs=1e-6)
            assert seen["l2"] == pytest.approx((x_adv - x)[i].norm().item(), rel=1e-5)
            assert 0 < seen["linf"] <= 8 / 255 + 1e-6
    for i, row in enumerate(rows):
        assert row["before"]["probability"] == pytest.approx(clean[i].max().item(), abs=1e-5)
        assert not row["before"]["broken"]
        picture = np.asarray(Image.open(out / row["picture"]))
        assert picture.shape == (24, 24, 3)
        assert (picture.min(), picture.max()) == (0, 255)
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for shown, row in zip(lines, rows, strict=True):
        assert shown.startswith(f"{row['image']}: {row['label']} ")
        assert f"-> {row['after']['prediction']}" in shown
        assert ("stands" in shown) == (not row["after"]["broken"])
    assert "own predictions" in done.stderr


def test_the_written_images_still_fool_when_they_are_given_back(diascope, place, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert diascope("attack", "m", *FILES, "--out", first, cwd=place).returncode == 0
    rows = json.loads((first / "results.json").read_text())["images"]
    files = [first / row["after_8_bits"]["file"] for row in rows]
    done = diascope("attack", "m", *files, "--out", second, "--eps", "0", cwd=place)
    assert done.returncode == 0, done.stderr
    again = json.loads((second / "results.json").read_text())["images"]
    for before, after in zip(rows, again, strict=True):
        assert after["before"]["prediction"] == before["after_8_bits"]["prediction"]
        assert after["before"]["probability"] == before["after_8_bits"]["probability"]
    assert any(row["after_8_bits"]["broken"] for row in rows)


def test_labels_and_targets_are_those_given(diascope, place, tmp_path):
    own = [CLASSES[k] for k in load_model(place / "m")(prepared(place)).argmax(1)]
    words = ("attack", "m", *FILES, "--eps", "0.3", "--steps", 20)
    given = diascope(*words, "--label", "mel", "--out", tmp_path / "label", cwd=place)
    assert given.returncode == 0, given.stderr
    rows = json.loads((tmp_path / "label" / "results.json").read_text())["images"]
    assert [row["label"] for row in rows] == ["mel"] * 3
    assert [row["before"]["broken"] for row in rows] == [label != "mel" for label in own]
    assert ["without an attack" in line for line in given.stdout.splitlines()] == [
        row["before"]["broken"] for row in rows
    ]
    assert "own predictions" not in given.stderr
    aimed = diascope(*words, "--target", "bkl", "--out", tmp_path / "target", cwd=place)
    assert aimed.returncode == 0, aimed.stderr
    rows = json.loads((tmp_path / "target" / "results.json").read_text())["images"]
    assert [row["target"] for row in rows] == ["bkl"] * 3
    assert [row["after"]["prediction"] for row in rows] == ["bkl"] * 3
    assert all(row["after"]["broken"] for row in rows)
    assert [row["label"] for row in rows] == own


CHEAP = {
    "apgd": ["steps=3"],
    "autoattack": ["steps=2", "queries=10"],
    "boundary": ["queries=100", "eps=null"],
    "fab": ["steps=3", "eps=.inf"],
    "square": ["queries=20"],
}


@pytest.mark.parametrize("name", attacks.names())
def test_every_attack_can_be_named(diascope, place, tmp_path, name):
    words = ("attack", "m", "a.png", "b.png", "--attack", name, *CHEAP.get(name, []))
    done = diascope(*words, "--out", tmp_path / "out", cwd=place)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["attack"]["name"] == name
    assert len(results["images"]) == 2
    aimed = diascope(*words, "--target", "mel", "--out", tmp_path / "aimed", cwd=place)
    assert aimed.returncode == 0, aimed.stderr


def test_what_8_bits_undo_is_said(diascope, place, tmp_path):
    """A ball of less than one grey level holds no other 8-bit image than the original."""
    words = ("attack", "m", *FILES, "--eps", 0.9 / 255, "--steps", 20)
    done = diascope(*words, "--out", tmp_path / "out", cwd=place)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "out" / "results.json").read_text())["images"]
    broken = [row["image"] for row in rows if row["after"]["broken"]]
    assert broken, "no image stands near enough to an edge"
    assert not any(row["after_8_bits"]["broken"] for row in rows)
    assert [row["after_8_bits"]["linf"] for row in rows] == [0.0] * 3
    assert rows[0]["after_8_bits"]["picture_contrast"] is None
    assert f"one grey level, 1/255, exists there): {', '.join(broken)}; exact/" in done.stderr
    assert done.stdout.count("but not at 8 bits") == len(broken)


def test_the_result_belongs_to_seed_and_image(diascope, place, tmp_path):
    def exact(name, *words):
        done = diascope("attack", "m", *words, "--out", tmp_path / name, cwd=place)
        assert done.returncode == 0, done.stderr
        return dict(zip(*read_images(tmp_path / name / "exact"), strict=True))

    together, alone = exact("t", *FILES), exact("l", place / "b.png")
    torch.testing.assert_close(alone["b"], together["b"], atol=1e-6, rtol=0)
    other = exact("o", place / "b.png", "--seed", 1)
    assert not torch.allclose(other["b"], alone["b"], atol=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("nowhere", "a.png"), "no model here"),
        (("m", "none.png"), "none.png: there is no such file"),
        (("m", "text.png"), "text.png: is not an image"),
        (("m", "deep"), "deep: is a folder"),
        (("m", "eps=1"), "no image is given"),
        (("m", "a.png", "--attack", "pdg"), "unknown attack 'pdg': did you mean 'pgd'?"),
        (("m", "a.png", "--attack", "pdg", "--target", "nv"), "did you mean 'pgd'?"),
        (("m", "a.png", "--norm", "l3"), "attack pgd.norm: 'l3'"),
        (("m", "a.png", "--eps", "much"), "attack pgd.eps: 'much'"),
        (("m", "a.png", "--eps", "1/0"), "attack pgd.eps: '1/0'"),
        (("m", "a.png", "--eps=-1"), "eps=-1"),
        (("m", "a.png", "step_sise=1"), "did you mean 'step_size'?"),
        (("m", "a.png", "--attack", "fgsm", "--steps", "3"), "unknown key 'steps'"),
        (("m", "a.png", "targeted=true"), "--target CLASS"),
        (("m", "a.png", "--label", "mle"), "--label mle: no class of m; did you mean 'mel'?"),
        (("m", "a.png", "--target", "xyz"), "known: bkl, mel, nv"),
        (("m", "a.png", "--label", "nv", "--target", "nv"), "is the label"),
        (("m", "a.png", "--out", "deep"), "--out deep: holds other files"),
        (("m", "a.png", "--out", "a.png"), "--out a.png: cannot be written"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(diascope, place, words, message):
    (place / "text.png").write_text("no image")
    done = diascope("attack", *words, cwd=place)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (place / "attack").exists()


def test_a_mistake_ends_the_process_without_a_traceback(place, fork):
    done = fork("attack", "m", "none.png", cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: none.png: there is no such file\n"


def test_a_model_of_another_house_is_told_its_classes(diascope, place, tmp_path):
    (place / "house.py").write_text(
        "from tests.nets import small_net\n\ndef build():\n    return small_net(2)\n"
    )
    words = ("attack", "house:build", "a.png", "--out", tmp_path / "out")
    untold = diascope(*words, cwd=place)
    assert untold.returncode == 2
    assert "classes" in untold.stderr
    done = diascope(*words, "--classes", "benign, malignant", "--size", 16, cwd=place)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["model"]["architecture"] == "Sequential"
    assert set(results["images"][0]["after"]["probabilities"]) == {"benign", "malignant"}
    assert read_images(tmp_path / "out" / "adversarial")[1].shape == (1, 3, 16, 16)
