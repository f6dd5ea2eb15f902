"""Which images a run is examined on: never one that it, or a run before it, was trained on."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.studies.toystudy import written

from diascope.audit.subject import open_subjects
from diascope.data import load_pixels, open_data
from diascope.errors import UserError
from diascope.studies import images
from diascope.studies.planning import Plan, plan_study
from diascope.studies.run import Done, carry_out
from diascope.studies.store import Store
from diascope.studies.study import read_study


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What one process knows of data by name is another test's."""
    yield
    images._open.cache_clear()
    images._print.cache_clear()


def drawn(folder: Path, counts: dict[str, int], seed: int) -> None:
    """Write PNG files of noise, so many in the folder of each class."""
    draw = np.random.default_rng(seed)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = draw.integers(0, 255, (16, 16, 3), np.uint8)
            Image.fromarray(pixels).save(folder / name / f"p{number // 2}_{number % 2}.png")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two hospitals; the second has two of the first's pictures under other names."""
    folder = tmp_path_factory.mktemp("data")
    drawn(folder / "here", {"mel": 16, "nv": 16}, 0)
    drawn(folder / "away", {"melanoma": 12, "nevus": 4, "other": 3}, 1)
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: Path) -> Path:
    """A store in which the first run is trained and examined."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIASCOPE_CACHE", str(folder / "cache"))
        return run(folder, data)[1].folder


@pytest.fixture
def begun(trained: Path, tmp_path: Path) -> Path:
    """A folder whose store has the first run."""
    shutil.copytree(trained, tmp_path / "store")
    return tmp_path


CHANGES: dict[str, Any] = {
    "every_run": {
        "data.name": "{data}/here",
        "data.options": {"group": r"(p\d+)_"},
    },
    "runs": {"second": None},
}
AWAY = {"data": "{data}/away", "part": "all", "classes": ["melanoma", "nevus"]}


def planned(folder: Path, **changes: Any) -> Plan:
    file = written(folder, **{**CHANGES, **changes})
    return plan_study(read_study(file), file)


def run(folder: Path, data: Path, **changes: Any) -> tuple[Plan, Store, Done]:
    plan = planned(folder, **changes)
    return plan, Store(folder / "store"), carry_out([plan], folder / "store", data)


def table(plan: Plan, store: Store, evaluation: str, run: str = "first") -> pd.DataFrame:
    return store.table(plan.tables[evaluation][run][0])


def reason(done: Done) -> str:
    return next(o.reason for o in done.outcomes.values() if o.state == "failed")


def test_other_data_are_read_by_the_models_classes_and_drawn_in_their_mix(
    begun: Path, data: Path
) -> None:
    some = {**AWAY, "images": 8}
    of = lambda test: {"measure": "predictions", "on": test}
    plan, store, _ = run(
        begun,
        data,
        tests={"away": AWAY, "some": some, "val": {"part": "val"}},
        evaluations={"away": of("away"), "some": of("some"), "val": of("val")},
    )
    away, few = table(plan, store, "away"), table(plan, store, "some")
    assert away.label.value_counts().to_dict() == {"mel": 12, "nv": 4}
    assert [c for c in away if c.startswith("prob_")] == ["prob_mel", "prob_nv"]
    assert set(away.prediction) <= {"mel", "nv"}
    assert len(few) == 8
    assert set(few.id) < set(away.id)
    split = pd.read_csv(store.run(plan.runs["first"][0]) / "split.csv")
    for evaluation, part in (("clean", "test"), ("val", "val")):
        assert set(table(plan, store, evaluation).path) == set(split.path[split.split == part])
    record = store.examined(plan.tables["some"]["first"][0])
    assert record["left_out"] == {"not drawn": 8}


def test_a_picture_that_was_trained_on_is_left_out_under_any_name(begun: Path, data: Path) -> None:
    plan, store = planned(begun), Store(begun / "store")
    split = pd.read_csv(store.run(plan.runs["first"][0]) / "split.csv", keep_default_na=False)
    assert split.group[0].startswith("p")
    seen = split.path[split.split == "train"].iloc[:3]
    other = begun / "copies"
    drawn(other / "there", {"mel": 2, "nv": 2}, 5)
    for number, path in enumerate(seen):
        (other / "there" / "mel" / f"copy{number}.png").write_bytes(
            (data / "here" / path).read_bytes()
        )
    copies = {"data": str(other / "there"), "part": "all"}
    measure = {"measure": "predictions", "on": "copies"}
    plan, store, done = run(begun, data, tests={"copies": copies}, evaluations={"c": measure})
    assert {o.state for o in done.outcomes.values()} == {"there", "done"}
    found = table(plan, store, "c")
    assert len(found) == 4
    assert not found.path.str.contains("copy").any()
    subject = open_subjects([store.run(plan.runs["first"][0])])[0]
    pixels = load_pixels(open_data(other / "there"), 16)
    with pytest.raises(RuntimeError, match="used in training"):
        images._check_unseen(pixels, [subject])


def test_images_of_the_run_that_was_started_from_are_not_tested_on(begun: Path, data: Path) -> None:
    tuned = {"model.weights": "{run:first}", "data.split.seed": 8}
    plan, store, done = run(begun, data, runs={"second": None, "tuned": tuned})
    assert {o.state for o in done.outcomes.values()} == {"there", "done"}
    splits = {
        name: pd.read_csv(store.run(plan.runs[name][0]) / "split.csv")
        for name in ("first", "tuned")
    }
    tests = {name: set(s.path[s.split == "test"]) for name, s in splits.items()}
    groups = {name: set(s.group[s.split != "test"]) for name, s in splits.items()}
    assert tests["first"] != tests["tuned"]
    found = table(plan, store, "clean", "tuned")
    assert set(found.path) == tests["first"] & tests["tuned"]
    assert not set(found.group) & (groups["first"] | groups["tuned"])


def test_data_that_changed_since_are_not_used_silently(begun: Path, data: Path) -> None:
    shutil.copytree(data / "here", begun / "here")
    plan, store = planned(begun), Store(begun / "store")
    split = pd.read_csv(store.run(plan.runs["first"][0]) / "split.csv")
    path = begun / "here" / split.path[split.split == "train"].iloc[0]
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(path)
    _, _, done = run(begun, begun, tests={"held-out": {"images": 3}})
    assert "have changed since" in reason(done)
    assert str(store.run(plan.runs["first"][0])) in reason(done)
    _, _, done = run(begun, begun, seeds=[1])
    assert "are not those that runs of" in reason(done)


@pytest.mark.parametrize(
    ("test", "said"),
    [
        ({"data": "{data}/away", "part": "test"}, "has no official test images"),
        ({**AWAY, "classes": ["melanoma"]}, "the test names 1 classes, the models tell 2 apart"),
        ({**AWAY, "classes": ["melanoma", "naevus"]}, "no class 'naevus': did you mean 'nevus'?"),
        ({"data": "{data}/away", "part": "all"}, "no image of the models' classes"),
        ({**AWAY, "source": "Bern"}, "no source 'Bern': it names none."),
        ({"data": "{data}/none", "part": "all"}, "not found"),
    ],
)
def test_a_test_that_does_not_fit_is_told_in_one_line(
    tmp_path: Path, data: Path, test: dict[str, Any], said: str
) -> None:
    plan = planned(tmp_path, tests={"other": test})
    spec = read_study(plan.file).tests["other"]

    class Model:
        card = {"classes": ["mel", "nv"], "size": 16, "preprocess": {}}  # noqa: RUF012

    with pytest.raises(UserError) as error:
        images.tested(spec, {}, Model(), [], Store(tmp_path), data)  # type: ignore[arg-type]
    assert said in str(error.value)
    assert "\n" not in str(error.value)
