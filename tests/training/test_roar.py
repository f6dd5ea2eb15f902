from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from tests.training.toy import toy_pixels

from diascope.errors import UserError
from diascope.explain import Gradient
from diascope.training import Progress, TrainConfig, open_run, read_config
from diascope.training import roar as roar_module
from diascope.training.roar import Roar, _mean_colour, _without, roar

SIDE, CORNER, EPOCHS = 16, 5, 4


@dataclass(frozen=True, kw_only=True)
class Corner:
    """A map of the corner in which the class is written; not `right`, of all but the corner."""

    rectification: ClassVar[str] = "absolute"
    right: bool = True

    def __call__(
        self, model: Any, x: torch.Tensor, target: Any, *, generator: Any = None, ids: Any = None
    ) -> torch.Tensor:
        heat = torch.zeros_like(x[:, :1])
        heat[:, :, :CORNER, :CORNER] = 1
        return heat if self.right else 1 - heat


class Notes(Progress):
    def __init__(self, stop_at: str = "") -> None:
        self.notes: list[str] = []
        self.epochs = 0
        self.stop_at = stop_at

    def note(self, text: str) -> None:
        self.notes.append(text)
        if self.stop_at and text.startswith(self.stop_at):
            raise KeyboardInterrupt

    def epoch(self, row: Any, epochs: int, best: bool, left: float) -> None:
        self.epochs += 1


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of noise, with a corner that is dark in one class and light in the other."""
    root = tmp_path_factory.mktemp("corner")
    draw = np.random.default_rng(0)
    for number in range(120):
        label = number % 2
        image = draw.integers(60, 196, (SIDE, SIDE, 3)).astype(np.uint8)
        image[:CORNER, :CORNER] = draw.integers(0, 50, (CORNER, CORNER, 3)) + 200 * label
        folder = root / ("dark", "light")[label]
        folder.mkdir(exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:03d}.png")
    return root


def config(data: Path, *overrides: str) -> TrainConfig:
    content = {
        "data": {"name": str(data), "size": SIDE, "split": {"fractions": [0.5, 0.1, 0.4]}},
        "model": {
            "name": "resnet18",
            "options": {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]},
        },
        "training": {
            "epochs": EPOCHS,
            "batch_size": 15,
            "augment": None,
            "select": "last",
            "optimizer": {"lr": 0.01},
            "device": "cpu",
        },
    }
    return read_config(content, overrides)


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIASCOPE_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


METHODS = {"corner": Corner(), "elsewhere": Corner(right=False)}


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Roar:
    out = tmp_path_factory.mktemp("roar") / "most"
    return roar(config(data), out, METHODS, shares=(0.1, 0.5), progress=Notes())


def test_without_the_corner_nothing_is_left_to_learn(done: Roar) -> None:
    curves = done.curves
    assert list(curves.columns) == ["corner", "elsewhere", "random"]
    assert curves.index.tolist() == [0.0, 0.1, 0.5]
    assert (curves.loc[0.0] == curves.loc[0.0].iloc[0]).all()
    assert curves.loc[0.0].iloc[0] > 0.95
    assert (curves["corner"].iloc[1:] < 0.75).all()  # chance, of 48 images
    assert (curves["elsewhere"] > 0.95).all()
    assert (curves["random"] > 0.9).all()
    assert (done.rows.images == 48).all()


def test_areas_by_hand(done: Roar) -> None:
    areas = done.areas.set_index("method")
    for name, curve in done.curves.items():
        a, b, c = curve
        expected = (0.1 * (a + b) / 2 + 0.4 * (b + c) / 2) / 0.5
        assert areas.loc[name, "area"] == pytest.approx(expected)
    assert areas.loc["corner", "gain"] == pytest.approx(
        areas.loc["random", "area"] - areas.loc["corner", "area"]
    )
    assert areas.loc["corner", "gain"] > 0.15
    assert areas.loc["elsewhere", "gain"] < 0.1
    assert areas.loc["random", "gain"] == 0


def test_keep_and_retrain_removes_the_least(data: Path, tmp_path: Path) -> None:
    found = roar(
        config(data),
        tmp_path / "least",
        {"corner": Corner()},
        shares=(0.85,),
        order="least",
        progress=Notes(),
    )
    assert found.curves.loc[0.85, "corner"] > 0.95
    areas = found.areas.set_index("method")
    assert areas.loc["corner", "gain"] == pytest.approx(
        areas.loc["corner", "area"] - areas.loc["random", "area"]
    )


def test_each_model_is_a_run_of_its_own(done: Roar) -> None:
    for part in ("base/seed-0", "corner/0.1/seed-0", "random/0.5/seed-0"):
        assert open_run(done.folder / part).config.training.epochs == EPOCHS
        assert (done.folder / part / "test.parquet").exists()
    written = pd.read_csv(done.folder / "roar.csv")
    pd.testing.assert_frame_equal(written, done.rows)
    assert len(written) == 7
    assert not list(done.folder.rglob("*.png"))


def test_what_is_removed(done: Roar) -> None:
    for part, count in (("train", 60), ("val", 12), ("test", 48)):
        corner = np.load(done.folder / "corner" / f"{part}.npy")
        assert corner.shape == (count, SIDE, SIDE)
        assert ((corner == 0).sum((1, 2)) == round(0.1 * SIDE**2)).all()
        assert ((corner <= 1).sum((1, 2)) == SIDE**2 // 2).all()
        assert (corner[:, :CORNER, :CORNER] == 0).all()
        random = np.load(done.folder / "random" / f"{part}.npy")
        assert ((random == 0).sum((1, 2)) == round(0.1 * SIDE**2)).all()
        assert not (random[0] == random[1]).all()
        assert (random == 0).mean(0).max() < 0.6  # nowhere in all images


def test_what_is_finished_is_not_repeated(data: Path, done: Roar) -> None:
    notes = Notes()
    again = roar(config(data), done.folder, METHODS, shares=(0.1, 0.5), progress=notes)
    assert notes.epochs == 0
    pd.testing.assert_frame_equal(again.rows, done.rows)


def test_what_stopped_goes_on(data: Path, tmp_path: Path, done: Roar) -> None:
    notes = Notes(stop_at="corner, 50%")
    methods = {"corner": Corner()}
    with pytest.raises(KeyboardInterrupt):
        roar(config(data), tmp_path / "out", methods, shares=(0.1, 0.5), progress=notes)
    assert notes.epochs == 2 * EPOCHS
    rest = Notes()
    found = roar(config(data), tmp_path / "out", methods, shares=(0.1, 0.5), progress=rest)
    assert rest.epochs == 3 * EPOCHS
    same = done.rows[done.rows.method != "elsewhere"].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.rows, same)


def test_a_folder_is_for_one_set_of_methods_and_shares(data: Path, done: Roar) -> None:
    for methods, options, words in (
        ({"corner": Corner(right=False)}, {}, "another method"),
        ({"corner": Corner()}, {"shares": (0.1, 0.6)}, "another shares"),
        ({"corner": Corner()}, {"order": "least"}, "another order"),
    ):
        with pytest.raises(UserError, match=words) as error:
            options = {"shares": (0.1, 0.5), **options}
            roar(config(data), done.folder, methods, progress=Notes(), **options)
        assert "\n" not in str(error.value)
        pd.testing.assert_frame_equal(pd.read_csv(done.folder / "roar.csv"), done.rows)
    with pytest.raises(UserError, match="training.batch_size"):
        roar(
            config(data, "training.batch_size=20"),
            done.folder,
            METHODS,
            shares=(0.1, 0.5),
            progress=Notes(),
        )


def test_repeats_have_seeds_of_their_own_and_the_maps_of_the_first(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explained = []
    levels = roar_module._levels
    monkeypatch.setattr(
        roar_module, "_levels", lambda *all: (explained.append(all[2].folder), levels(*all))[1]
    )
    found = roar(
        config(data, "training.epochs=1", "training.seed=3"),
        tmp_path / "out",
        {"gradient": Gradient()},
        shares=(0.2,),
        repeats=2,
        progress=Notes(),
    )
    assert found.rows.seed.tolist() == [3, 4] * 3
    assert set(explained) == {tmp_path / "out" / "base" / "seed-3"}
    about = json.loads((tmp_path / "out" / "gradient" / "about.json").read_text())
    assert about["method"]["name"] == "gradient"
    runs = [open_run(tmp_path / "out" / "gradient" / "0.2" / f"seed-{s}").model() for s in (3, 4)]
    first, second = (torch.cat([p.flatten() for p in run.parameters()]) for run in runs)
    assert not torch.equal(first, second)
    by_hand = found.rows[found.rows.method == "gradient"].accuracy.mean()
    assert found.curves.loc[0.2, "gradient"] == pytest.approx(by_hand)


def test_pixels_without_some() -> None:
    pixels = toy_pixels(5).take([4, 0, 2])
    levels = np.full((3, 8, 8), 2, np.uint8)
    levels[0, 1, 2], levels[2, 7, 0] = 0, 1
    colour = np.array([1, 2, 3], np.uint8)
    first, second = (_without(pixels, levels, last, colour) for last in (0, 1))
    whole = np.asarray(pixels.images)
    expected = whole.copy()
    expected[0, 1, 2] = colour
    assert np.array_equal(np.asarray(first.images), expected)
    expected[2, 7, 0] = colour
    assert np.array_equal(np.asarray(second.images), expected)
    assert np.array_equal(np.asarray(second.take([2, 0]).images), expected[[2, 0]])
    assert np.array_equal(
        second.x([2]).numpy()[0], expected[2].transpose(2, 0, 1) / np.float32(255)
    )
    assert np.array_equal(np.asarray(pixels.images), whole)
    assert (first.dataset.ids == pixels.dataset.ids).all()
    assert first.fingerprints()[1] == pixels.fingerprints()[1]
    assert first.fingerprints()[0] != pixels.fingerprints()[0]


def test_the_mean_colour() -> None:
    pixels = toy_pixels(70)
    expected = np.asarray(pixels.images).mean((0, 1, 2))
    assert np.abs(_mean_colour(pixels) - expected).max() <= 0.5


def test_mistakes_are_one_line(data: Path, tmp_path: Path) -> None:
    grid = {"training.seed": [1, 2]}
    searched = read_config({**config(data).to_dict(), "search": {"grid": grid}})
    for given, methods, options, words in (
        (config(data), METHODS, {"shares": (0.5, 0.1)}, "rise"),
        (config(data), METHODS, {"shares": ()}, "rise"),
        (config(data), METHODS, {"shares": (0.0, 0.5)}, "rise"),
        (config(data), METHODS, {"order": "both"}, "most or least"),
        (config(data), METHODS, {"repeats": 0}, "at least once"),
        (config(data), {"random": Corner()}, {}, "'random'"),
        (config(data), {"a/b": Corner()}, {}, "a/b"),
        (searched, METHODS, {}, "without search"),
        (config(data, "training.devices=2"), METHODS, {}, "one process"),
        (config(data, "data.split.fractions=[0.8,0.2,0.0]"), METHODS, {}, "needs test images"),
    ):
        with pytest.raises(UserError, match=words) as error:
            roar(given, tmp_path / "out", methods, progress=Notes(), **options)
        assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
