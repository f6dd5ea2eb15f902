"""An examination that was interrupted goes on from its finished parts, to the same table."""

from __future__ import annotations

import os
import shutil
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.studies.exams import exam_of, line, pixels_of
from tests.studies.test_running import forked, planned
from tests.training.victim import await_changes

from diascope.errors import Doubt, gathered
from diascope.studies.evaluations.agreement import Agreement
from diascope.studies.evaluations.attention_shift import AttentionShift
from diascope.studies.evaluations.choice import Choice
from diascope.studies.evaluations.maps import Maps
from diascope.studies.evaluations.robust import Robust
from diascope.studies.exam import Exam
from diascope.studies.jobs import Stopped
from diascope.studies.run import carry_out
from diascope.studies.store import Store

EVALUATIONS = {
    "robust": Robust(
        epsilons=(0.01, 0.05),
        attacks={"fgsm": "fgsm", "pgd": {"name": "pgd", "steps": 3}},
        steps=3,
        queries=10,
        masking_images=6,
        masking_steps=3,
        masking_queries=5,
    ),
    "maps": Maps(
        explainers={"gradient": "gradient", "smoothgrad": {"name": "smoothgrad", "samples": 2}},
        faithfulness=("deletion",),
        faithfulness_images=5,
    ),
    "attention_shift": AttentionShift(
        explainers={"gradient": "gradient"},
        epsilons=(0.01, 0.05),
        attack={"name": "pgd", "steps": 3, "random_start": True},
    ),
    "agreement": Agreement(
        explainers={"gradient": "gradient", "smoothgrad": {"name": "smoothgrad", "samples": 2}}
    ),
    "choice": Choice(by="gini", of="prediction"),
}


def exam(scratch: Path, **options: Any) -> Exam:
    beside = {f"seed {seed}": line(seed=seed) for seed in (1, 2)}
    made = exam_of(line(), pixels_of(24), batch_size=4, beside=beside, **options)
    made.scratch = scratch
    return made


def passes(scratch: Path, evaluation: Any) -> tuple[Any, list[float]]:
    done = exam(scratch)
    return evaluation(done), done.heard


@pytest.mark.parametrize("name", EVALUATIONS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_finished_parts_are_read_back_and_the_table_is_the_same(
    tmp_path: Path, name: str, share: float
) -> None:
    evaluation, never = EVALUATIONS[name], tmp_path / "never"
    whole, told = passes(never, evaluation)
    assert not never.exists()
    left = share * sum(told)

    def tell(made: float) -> None:
        nonlocal left
        left -= made
        if left < 0:
            raise Stopped

    (tmp_path / "scratch").mkdir()
    with pytest.raises(Stopped):
        evaluation(exam(tmp_path / "scratch", tell=tell))
    assert list((tmp_path / "scratch").glob("*.npz"))
    resumed, again = passes(tmp_path / "scratch", evaluation)
    assert sum(again) < sum(told)
    assert (resumed.about, resumed.masking) == (whole.about, whole.masking)
    assert list(resumed.columns) == list(whole.columns)
    for column, values in whole.columns.items():
        np.testing.assert_array_equal(resumed.columns[column], values)
        assert resumed.columns[column].dtype == values.dtype


def test_a_part_is_of_its_rows_and_batches_and_doubts_come_back(tmp_path: Path) -> None:
    calls = 0

    def make() -> dict[str, Any]:
        nonlocal calls
        calls += 1
        warnings.warn("few rows", Doubt, stacklevel=1)
        return {"a": np.arange(3), "b": 2.5}

    rows = np.arange(4)
    for of, part, count in (
        (exam(tmp_path), ["x", rows], 1),
        (exam(tmp_path), ["x", rows], 1),
        (exam(tmp_path), ["x", rows[:2]], 2),
        (exam_of(line(), pixels_of(8), batch_size=2), ["x", rows], 3),
    ):
        of.scratch = tmp_path
        with gathered() as doubts:
            found = of.kept(part, make)
        assert calls == count
        assert doubts == ["few rows"]
        assert found["a"].tolist() == [0, 1, 2]
        assert float(found["b"]) == 2.5
    for file in tmp_path.glob("*.npz"):
        file.write_bytes(file.read_bytes()[:30])
    with gathered():
        exam(tmp_path).kept(["x", rows], make)
    assert calls == 4


def test_parts_of_something_else_are_not_read_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep_scratch("k", ["images", 1])
    (store.scratch("k") / "part.npz").touch()
    store.keep_scratch("k", ["images", 1])
    assert (store.scratch("k") / "part.npz").exists()
    store.keep_scratch("k", ["other images", 1])
    assert not (store.scratch("k") / "part.npz").exists()


def test_an_examination_that_is_killed_goes_on_to_the_same_table(tmp_path: Path) -> None:
    measure = {
        "name": "robust", "norm": "l2", "epsilons": [0.1, 0.2, 0.4, 0.8], "masking_images": 0,
        "attacks": {f"pgd{n}": {"name": "pgd", "steps": 60} for n in range(6)},
    }  # fmt: skip
    evaluations = {"clean": None, "attacked": {"measure": measure, "on": "held-out"}}
    plan = planned(tmp_path, runs={"second": None}, evaluations=evaluations)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    train, examine = plan.jobs
    carry_out([plan], whole)
    shutil.copytree(whole, killed)
    for file in Store(killed).files(examine):
        file.unlink(missing_ok=True)
    process = forked(lambda: carry_out([plan], killed))
    scratch = Store(killed).scratch(examine.key)
    await_changes(scratch, 3)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert Store(killed).record(examine) is None
    assert Store(killed).begun(examine)
    carry_out([plan], killed)
    pd.testing.assert_frame_equal(*(Store(at).table(examine.key) for at in (whole, killed)))
    about = [Store(at).examined(examine.key)["about"] for at in (whole, killed)]
    assert about[0] == about[1]
    assert not scratch.exists()
    assert Store(killed).record(train) is not None
