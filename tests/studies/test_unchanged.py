"""What is finished counts only for the images and weights that it was done with."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.studies.test_images import AWAY, CHANGES, drawn
from tests.studies.toystudy import written

from diascope.errors import UserError
from diascope.studies import images
from diascope.studies.engines.inprocess import InProcess
from diascope.studies.planning import Plan, plan_study
from diascope.studies.run import Done, carry_out, collect, run_study
from diascope.studies.store import Store
from diascope.studies.study import read_study
from diascope.studies.unchanged import CHANGED, check_unchanged

AWAY_STUDY: dict[str, Any] = {
    **CHANGES,
    "tests": {"away": AWAY},
    "evaluations": {"away": {"measure": "predictions", "on": "away"}},
}


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    """What one process knows of data by name is another test's."""
    yield
    forget()


def forget() -> None:
    images._open.cache_clear()
    images._print.cache_clear()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two hospitals, `data`, and the store of a study of them, all done."""
    folder = tmp_path_factory.mktemp("done")
    drawn(folder / "data" / "here", {"mel": 16, "nv": 16}, 0)
    drawn(folder / "data" / "away", {"melanoma": 8, "nevus": 4}, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIASCOPE_CACHE", str(folder / "cache"))
        file = written(folder, **AWAY_STUDY)
        run_study(read_study(file), file, folder / "store", folder / "data")
    forget()
    return folder


@pytest.fixture
def mine(done: Path, tmp_path: Path) -> Path:
    """A copy of that folder."""
    shutil.copytree(done, tmp_path / "mine")
    return tmp_path / "mine"


def planned(folder: Path, **changes: Any) -> Plan:
    file = written(folder, **{**AWAY_STUDY, **changes})
    return plan_study(read_study(file), file)


def carried(folder: Path) -> Done:
    forget()
    return carry_out([planned(folder)], folder / "store", folder / "data")


def repaint(folder: Path) -> None:
    """Write other pixels into the files of a folder."""
    draw = np.random.default_rng(7)
    for file in sorted(folder.rglob("*.png")):
        Image.fromarray(draw.integers(0, 255, (16, 16, 3), np.uint8)).save(file)


def check(folder: Path, data: str = "data", **options: Any) -> list[str]:
    forget()
    plan = planned(folder)
    return check_unchanged(plan.every, Store(folder / "store"), folder / data, **options)


def test_the_same_images_elsewhere_are_the_same(mine: Path) -> None:
    assert check(mine) == []
    shutil.copytree(mine / "data", mine / "moved", copy_function=shutil.copy)
    assert check(mine, "moved") == []
    notes = [json.loads(file.read_text()) for file in (mine / "store" / "data").iterdir()]
    digests = [note["digests"] for note in notes if "digests" in note]
    assert sorted(len(set(each.values())) for each in digests) == [1, 1]
    assert max(len(each) for each in digests) > 1  # by the times of the files
    record = Store(mine / "store").record(planned(mine).jobs[0])
    assert record is not None
    assert record["diascope"]
    assert record["images_digest"] in {each for some in digests for each in some.values()}


@pytest.mark.parametrize("hospital", ["here", "away"])
def test_other_pixels_under_the_same_name_are_refused(mine: Path, hospital: str) -> None:
    shutil.copytree(mine / "data", mine / "data2")
    repaint(mine / "data2" / hospital)
    with pytest.raises(UserError) as error:
        check(mine, "data2")
    said = str(error.value)
    assert said.startswith(f"{{data}}/{hospital}: its images, labels or regions are not those of ")
    assert "\n" not in said
    assert check(mine) == []
    file = mine / "toy.yaml"
    forget()
    with pytest.raises(UserError, match="its images, labels or regions"):
        run_study(read_study(file), file, mine / "store", mine / "data2")


def test_a_label_that_changed_is_seen(mine: Path) -> None:
    folder = mine / "data" / "away"
    file = sorted((folder / "melanoma").iterdir())[0]
    file.rename(folder / "nevus" / f"x{file.name}")
    with pytest.raises(UserError, match="{data}/away: its images, labels or regions"):
        check(mine)


def test_what_is_to_be_done_to_do_it_anew_does_it(mine: Path) -> None:
    repaint(mine / "data" / "here")
    with pytest.raises(UserError) as error:
        check(mine)
    remedy = str(error.value).partition("do what depends on them anew: ")[2]
    assert remedy == f"xargs rm -rf < {mine / 'store' / CHANGED}"
    subprocess.run(remedy, shell=True, check=True)
    assert check(mine) == []
    assert {o.state for o in carried(mine).outcomes.values()} == {"done"}
    assert check(mine) == []


def test_tables_of_different_images_are_never_paired(mine: Path) -> None:
    two = {"runs": {"third": {"training.epochs": 1}}}
    plan = planned(mine, **two)
    repaint(mine / "data" / "away")
    forget()
    finished = carry_out([plan], mine / "store", mine / "data")
    assert {o.state for o in finished.outcomes.values()} == {"there", "done"}
    with pytest.raises(UserError, match="{data}/away: its images, labels or regions are not those"):
        collect(plan, Store(mine / "store"))


def test_without_data_it_is_said_that_nothing_was_compared(mine: Path) -> None:
    plan = planned(mine)
    said = check_unchanged(plan.every, Store(mine / "store"), None)
    assert len(said) == 2
    assert all(line.startswith("whether images are still those of finished") for line in said)
    assert check_unchanged(plan.every, Store(mine / "store"), None, at_hand=False) == []
    assert collect(plan, Store(mine / "store")).complete


def test_a_run_trained_anew_on_other_images_takes_its_tables_with_it(mine: Path) -> None:
    plan, store = planned(mine), Store(mine / "store")
    key = plan.runs["first"][0]
    record = json.loads((mine / "store" / "runs" / f"{key}.json").read_text())
    record["data"]["fingerprint"] = "another"
    (mine / "store" / "runs" / f"{key}.json").write_text(json.dumps(record))
    with pytest.raises(UserError, match="trained anew on other images"):
        check_unchanged(plan.every, store, None)
    removed = (mine / "store" / CHANGED).read_text().split()
    tables = [path for job in plan.jobs[1:] for path in store.files(job) if path.exists()]
    assert removed == [str(path) for path in tables]


def test_a_file_of_weights_is_known_by_its_content(mine: Path) -> None:
    store = Store(mine / "store")
    weights = store.run(planned(mine).runs["first"][0]) / "model.safetensors"
    shutil.copy(weights, mine / "data" / "w.safetensors")
    tuned = {"runs": {"tuned": {"model.weights": "{data}/w.safetensors"}}}
    plan = planned(mine, **tuned)
    forget()
    finished = carry_out([plan], store.folder, mine / "data")
    assert {o.state for o in finished.outcomes.values()} == {"there", "done"}
    assert check_unchanged(plan.every, store, mine / "data") == []
    content = load_file(weights)
    save_file({k: v + 1 if v.is_floating_point() else v for k, v in content.items()},
              mine / "data" / "w.safetensors")  # fmt: skip
    with pytest.raises(UserError, match="{data}/w.safetensors: its content is not those of"):
        check_unchanged(plan.every, store, mine / "data")


def test_datasets_joined_are_known_though_no_image_has_a_mask(mine: Path) -> None:
    parts = {
        "here": {"data": str(mine / "data" / "here"), "labels": {"mel": "melanoma", "nv": "nevus"}},
        "away": {"data": str(mine / "data" / "away")},
    }
    file = mine / "data" / "both.yaml"
    file.write_text(json.dumps({"classes": ["melanoma", "nevus"], "parts": parts}))
    plan = planned(mine, tests={"away": {**AWAY, "data": "joined:{data}/both.yaml"}})
    forget()
    outcomes = carry_out([plan], mine / "store", mine / "data").outcomes.values()
    assert not [outcome.reason for outcome in outcomes if outcome.reason]
    forget()
    repaint(mine / "data" / "away")
    with pytest.raises(UserError, match=r"both\.yaml: its images, labels or regions are not those"):
        check_unchanged(plan.jobs, Store(mine / "store"), mine / "data")


def test_a_run_whose_folder_is_removed_is_trained_again(mine: Path) -> None:
    store, key = Store(mine / "store"), planned(mine).runs["first"][0]
    before = load_file(store.run(key) / "model.safetensors")
    shutil.rmtree(store.run(key))
    assert check(mine) == []
    assert [o.state for o in carried(mine).outcomes.values()] == ["there", "there", "done"]
    after = load_file(store.run(key) / "model.safetensors")
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_an_unfinished_run_goes_on_where_the_data_lie_now(mine: Path) -> None:
    often = {**CHANGES["every_run"], "training.checkpoint_seconds": 0, "training.epochs": 3}
    plan, looks = planned(mine, every_run=often), 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        return looks > 4

    store = Store(mine / "late")
    outcomes = list(InProcess().run(plan.jobs, store.folder, mine / "data", stop, print))
    assert {o.state for o in outcomes} == {"left"}
    key = plan.runs["first"][0]
    assert (store.run(key) / "state.pt").exists()
    (mine / "data").rename(mine / "elsewhere")
    forget()
    done = carry_out([plan], store.folder, mine / "elsewhere")
    assert not [o.reason for o in done.outcomes.values() if o.reason]
    assert {o.state for o in done.outcomes.values()} == {"done"}
    forget()
    carry_out([plan], mine / "whole", mine / "elsewhere")
    states = [
        load_file(Store(mine / at).run(key) / "model.safetensors") for at in ("late", "whole")
    ]
    assert all(np.array_equal(states[0][name], states[1][name]) for name in states[1])
