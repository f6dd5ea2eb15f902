"""The store: complete or absent, and one worker a key."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from diascope.errors import UserError
from diascope.studies.jobs import Job
from diascope.studies.store import Store

JOB = Job("examine", "toy: a of b", {"run": "x"})


def test_a_table_is_there_once_its_record_is(tmp_path: Path) -> None:
    store, table = Store(tmp_path), pd.DataFrame({"id": [1, 2], "correct": [True, False]})
    store.scratch(JOB.key).mkdir(parents=True)
    store.keep_table(JOB, table)
    assert store.record(JOB) is None
    with pytest.raises(UserError, match="no finished table"):
        store.table(JOB.key)
    store.fail(JOB, "Traceback\n\nno luck")
    assert store.failure(JOB) == "no luck"
    about = {"auc": float("nan"), "n": np.int64(3), "curve": np.array([0.5, np.inf])}
    store.finish(JOB, seconds=1.5, about=about, masking=None)
    pd.testing.assert_frame_equal(store.table(JOB.key), table)
    record = store.examined(JOB.key)
    assert record["about"] == {"auc": None, "n": 3, "curve": [0.5, None]}
    assert (record["label"], record["content"]) == (JOB.label, {"run": "x"})
    assert store.failure(JOB) == ""
    assert not store.scratch(JOB.key).exists()


def test_a_key_is_locked_once_and_free_again_after(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.locked("k") as mine, Store(tmp_path).locked("k") as other, store.locked("l") as l_:
        assert (mine, other, l_) == (True, False, True)
    with store.locked("k") as mine:
        assert mine


def test_what_is_recorded_counts_only_with_what_it_tells_of(tmp_path: Path) -> None:
    store, run = Store(tmp_path), Job("train", "toy: train a", {"config": {}})
    for job in (JOB, run):
        store.finish(job, seconds=1.0)
        assert store.record(job) is None
    store.run(run.key).mkdir()
    (store.run(run.key) / "model.safetensors").touch()
    assert store.record(run) is not None
    assert store.trained(run.key)["label"] == "toy: train a"


def test_who_is_at_work_is_known_to_others(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not store.at_work("k")
    assert not list(tmp_path.iterdir())
    with store.locked("k"):
        assert Store(tmp_path).at_work("k")
    assert not store.at_work("k")


def test_damage_is_told_in_one_line(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.keep_table(JOB, pd.DataFrame({"id": [1]}))
    store.finish(JOB, seconds=1.0)
    file = tmp_path / "tables" / f"{JOB.key}.json"
    file.write_text(file.read_text()[:20])
    with pytest.raises(UserError, match=r"cannot be read .*; remove it"):
        store.record(JOB)
    file.write_text(json.dumps({}))
    with pytest.raises(UserError, match="no finished run is here"):
        store.trained("none")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"), Store(tmp_path / "file").locked("k"):
        pass
