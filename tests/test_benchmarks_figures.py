"""The papers' layouts, and whether a shortcut is found, are drawn from models of ours."""

from __future__ import annotations

import importlib
import json
from pathlib import Path

import benchmarks
import pytest
import torch
from benchmarks import figures, hospitals, map_table, shortcut
from PIL import Image

from diascope.data import Preprocess
from diascope.models import create_model, save_model

SKIN = "phantom:images=24,size=32,hospital=a,agreement=0.95,seed=3"
CLASSES = ["nevus", "keratosis", "melanoma"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two models of the phantom's classes, files without training."""
    folder = tmp_path_factory.mktemp("figures")
    card = {"classes": CLASSES, "size": 32, "preprocess": Preprocess().model_dump()}
    for seed in (0, 1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = create_model("resnet18", 3, layers=[1, 1, 1, 1], channels=[8, 8, 8, 8])
        save_model(model.eval(), folder / f"m{seed}.safetensors", **card)
    return folder


@pytest.mark.parametrize(
    ("layout", "models", "words"),
    [
        ("maps", 2, []),
        ("maps", 2, ["--method", "gradcam", "--style", "grey overlay"]),
        ("baselines", 1, ["--images", "1"]),
        ("failures", 1, []),
        ("attacked", 1, ["--images", "1"]),
    ],
)
def test_one_dataset(runs, tmp_path, layout, models, words):
    named = [f"--run=net {k}={runs}/m{k}.safetensors" for k in range(models)]
    out = tmp_path / "figure.png"
    figures.main([layout, *named, "--data", SKIN, "--out", str(out), "--images", "2", *words])
    picture = Image.open(out).convert("RGB")
    assert len(picture.getcolors(1 << 24) or []) > 100


@pytest.mark.parametrize("layout", ["datasets", "roc"])
def test_several_datasets(runs, tmp_path, layout):
    other = SKIN.replace("hospital=a", "hospital=b")
    words = [f"--run=A:net={runs}/m0.safetensors", f"--run=B:net={runs}/m1.safetensors"]
    out = tmp_path / "figure.png"
    figures.main(
        [layout, *words, f"--data=A={SKIN}", f"--data=B={other}", "--out", str(out), "--images=2"]
    )
    assert out.stat().st_size > 5000


def test_the_shares_on_sticker_and_lesion_stand_beside_chance(runs, tmp_path, capsys):
    shortcut.main(
        [
            *(f"{runs}/m{k}.safetensors" for k in (0, 1)),
            *("--data", SKIN, "--images", "12", "--shown", "2"),
            *("--out", str(tmp_path / "s.png")),
        ]
    )
    said = capsys.readouterr().out
    assert said.count("mass on the sticker") == said.count("mass on the lesion") == 2
    assert said.count("chance") == 4
    assert (tmp_path / "s.png").stat().st_size > 5000


def test_hospitals_stand_in_one_table(runs, capsys):
    other = SKIN.replace("hospital=a", "hospital=b")
    found = hospitals.main(
        [
            *(f"--run=net {k}={runs}/m{k}.safetensors" for k in (0, 1)),
            *(f"--panel=home={SKIN}", f"--panel=away@={other}", "--eps=2/255", "--steps=2"),
        ]
    )
    assert [(row["panel"], row["model"]) for row in found] == [
        (panel, f"net {k}") for panel in ("home", "away") for k in (0, 1)
    ]
    assert all(row["attacked"]["AUROC"].value <= row["clean"]["AUROC"].value for row in found)
    lines = capsys.readouterr().out.splitlines()
    assert {line.count("|") for line in lines} == {9}


def test_the_table_of_maps_has_every_measure_beside_its_difference(runs, tmp_path, capsys):
    models = [f"--a={runs}/m0.safetensors", f"--b={runs}/m1.safetensors"]
    told = tmp_path / "table.json"
    map_table.main([*models, "--data", SKIN, "--images", "12", "--hair", "--json", str(told)])
    said = capsys.readouterr().out
    rows = {line.split("|")[1].strip(): line for line in said.splitlines() if line[:2] == "| "}
    assert {"mass inside", "pointing", "gini", "total variation", "mass on hair"} <= set(rows)
    assert "[" not in rows.pop("measure")
    without = {name for name, line in rows.items() if line.count("[") < 3}
    assert without <= {"colour variation"}  # of maps so small it is hardly ever defined
    (found,) = json.loads(told.read_text())
    assert found["images"] == 12


@pytest.mark.parametrize("path", sorted(Path(benchmarks.__file__).parent.rglob("*.py")))
def test_every_script_can_be_opened(path):
    name = ".".join(path.relative_to(Path(benchmarks.__file__).parents[1]).with_suffix("").parts)
    try:
        importlib.import_module(name.removesuffix(".__init__"))
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] in ("benchmarks", "diascope"):
            raise
        pytest.skip(f"{error.name} is not installed")
