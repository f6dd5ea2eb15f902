"""Studies that are run: done once, interrupted, killed, shared and gone on with."""

from __future__ import annotations

import os
import shutil
import signal
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import lightning.fabric  # noqa: F401  # before any fork
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file
from tests.forked import FORK
from tests.studies.toystudy import written
from tests.training.victim import await_changes

from diascope.errors import UserError
from diascope.studies import execute as executing
from diascope.studies import workers
from diascope.studies.engines.inprocess import InProcess
from diascope.studies.jobs import Stopped
from diascope.studies.planning import Plan, plan_study
from diascope.studies.run import Done, carry_out, collect, run_study
from diascope.studies.store import Store
from diascope.studies.study import read_study
from diascope.studies.telling import status_lines

CLAIM = {"says": "equal", "test": {"name": "equal", "a": "first/clean.loss", "b": 1, "within": 9}}


def planned(folder: Path, **changes: Any) -> Plan:
    file = written(folder, **changes)
    return plan_study(read_study(file), file)


def states(done: Done) -> dict[str, str]:
    return {o.job.label.partition(": ")[2]: o.state for o in done.outcomes.values()}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the runs that are trained, as they begin."""
    keys: list[str] = []
    train = executing.train

    def counted(config: Any, out: Path, *args: Any, **options: Any) -> Any:
        keys.append(out.name)
        return train(config, out, *args, **options)

    monkeypatch.setattr(executing, "train", counted)
    return keys


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the toy study; `store` has all of it."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIASCOPE_CACHE", str(folder / "cache"))
        carry_out([planned(folder)], folder / "store")
    return folder


@pytest.fixture
def only_runs(whole: Path, tmp_path: Path) -> Path:
    """A store that has the runs of the toy study, and no tables."""
    shutil.copytree(whole / "store", tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "tables")
    return tmp_path / "store"


def test_a_study_is_trained_examined_and_decided_and_not_again(
    tmp_path: Path, trained: list[str]
) -> None:
    file = written(
        tmp_path,
        seeds=[0, 1],
        runs={"second": None},
        claims={"c": CLAIM},
        untestable={"u": {"says": "it flies", "reason": "no wings"}},
    )
    study, said = read_study(file), list[str]()
    results = run_study(study, file, tmp_path / "store", say=said.append)
    assert results.complete
    assert {job.state for job in results.jobs} == {"done"}
    assert len(trained) == 2
    assert [(c.name, c.verdict) for c in results.claims] == [
        ("c", "supported"),
        ("u", "not testable here"),
    ]
    assert said[0] == "toy, small: 2 trainings to do, 0 there; 2 examinations to do, 0 there"
    assert said[1].startswith("about ")
    assert said[-1].startswith("[4/4] toy: clean of first, seed 1: done in ")
    assert results.seconds == pytest.approx(sum(job.seconds for job in results.jobs))

    store = Store(tmp_path / "store")
    key = results.tables["clean"]["first"]["1"]
    table, record = store.table(key), store.examined(key)
    run = store.run(record["content"]["run"])
    split = pd.read_csv(run / "split.csv")
    assert set(table.path) == set(split.path[split.split == "test"])
    assert {"id", "label", "group", "source", "prediction", "correct", "loss"} <= set(table)
    assert {c.removeprefix("prob_") for c in table if c.startswith("prob_")} == {
        "nevus",
        "keratosis",
        "melanoma",
    }
    assert (table.correct == (table.label == table.prediction)).all()
    assert record["images"] == len(table)
    assert record["hardware"]["cpu"]
    assert store.trained(run.name)["data"]["fingerprint"] == record["trained_on"]
    assert not (store.folder / "scratch" / key).exists()

    again = run_study(study, file, tmp_path / "store", say=said.append)
    assert {job.state for job in again.jobs} == {"there"}
    assert len(trained) == 2
    assert again.claims == results.claims


def test_the_same_configuration_is_trained_once_in_two_studies(
    tmp_path: Path, only_runs: Path, trained: list[str]
) -> None:
    names = {"runs": {"first": None, "plain": {"objective": {"name": "standard"}}}}
    file = written(tmp_path, "other.yaml", title="Other", **names)
    other = plan_study(read_study(file), file)
    done = carry_out([other, planned(tmp_path)], only_runs)
    assert states(done) == {
        "train second, seed 0": "there",
        "clean of second, seed 0": "done",
        "train plain, seed 0": "there",
        "clean of plain, seed 0": "done",
    }
    assert trained == []
    assert collect(other, Store(only_runs)).complete


def test_a_job_that_fails_takes_with_it_what_needs_it_alone(
    tmp_path: Path, only_runs: Path
) -> None:
    runs = {
        "first": {"data.name": "folder:{data}/later"},
        "third": {"model.weights": "{run:first}"},
    }
    plan = planned(tmp_path, runs=runs)
    done = carry_out([plan], only_runs, tmp_path / "data")
    assert states(done) == {
        "train first, seed 0": "failed",
        "clean of first, seed 0": "left",
        "train second, seed 0": "there",
        "clean of second, seed 0": "done",
        "train third, seed 0": "left",
        "clean of third, seed 0": "left",
    }
    failed = done.outcomes[plan.runs["first"][0]]
    assert "expected a folder of images" in failed.reason
    store = Store(only_runs)
    assert "Traceback" not in store.error_file(failed.job.key).read_text()
    found = {job.label: job for job in collect(plan, store, done).jobs}
    assert "expected a folder" in found["toy: train first, seed 0"].reason
    assert "needs 'toy: train first, seed 0'" in found["toy: train third, seed 0"].reason


def test_a_fault_that_may_pass_is_tried_again_and_a_mistake_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(tmp_path, runs={"second": None})
    faults = [RuntimeError("no luck"), UserError("a mistake")]
    train = executing.train

    def faulty(*args: Any, **options: Any) -> Any:
        if faults:
            raise faults.pop(0)
        return train(*args, **options)

    monkeypatch.setattr(executing, "train", faulty)
    said = list[str]()
    done = carry_out([plan], tmp_path / "store", say=said.append)
    assert states(done)["train first, seed 0"] == "failed"  # after the second fault
    assert done.outcomes[plan.runs["first"][0]].reason == "a mistake"
    assert "toy: train first, seed 0: RuntimeError: no luck; once more" in said
    faults += [RuntimeError("no luck")]
    assert set(states(carry_out([plan], tmp_path / "store")).values()) == {"done"}
    assert not Store(tmp_path / "store").error_file(plan.runs["first"][0]).exists()
    faults += [RuntimeError("none"), RuntimeError("at all")]
    other = planned(tmp_path, seeds=[5], runs={"second": None})
    assert states(carry_out([other], tmp_path / "store"))["train first, seed 5"] == "failed"
    trace = Store(tmp_path / "store").error_file(other.runs["first"][5]).read_text()
    assert "Traceback" in trace
    assert trace.strip().endswith("RuntimeError: at all")


def forked(work: Callable[[], Any]) -> Any:
    process = FORK.Process(target=work)
    with warnings.catch_warnings():  # of Python 3.12 on: this process has threads
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    return process


def same(plan: Plan, one: Path, other: Path) -> bool:
    """Tell whether two stores have the same weights and tables of a plan, bit for bit."""
    for job in plan.jobs:
        places = [Store(store) for store in (one, other)]
        if job.kind == "train":
            a, b = (load_file(place.run(job.key) / "model.safetensors") for place in places)
            if any(not torch.equal(a[name], b[name]) for name in a):
                return False
        else:
            pd.testing.assert_frame_equal(*(place.table(job.key) for place in places))
    return True


def test_a_study_that_is_killed_and_one_whose_time_is_over_go_on_to_the_same_numbers(
    tmp_path: Path, whole: Path
) -> None:
    often = {"every_run": {"training.checkpoint_seconds": 0}, "runs": {"second": None}}
    plan = planned(tmp_path, **often)
    key = plan.runs["first"][0]
    state = Store(tmp_path / "killed").run(key) / "state.pt"
    process = forked(lambda: carry_out([plan], tmp_path / "killed"))
    await_changes(state, 2)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert state.exists()
    assert Store(tmp_path / "killed").record(plan.jobs[0]) is None
    assert set(states(carry_out([plan], tmp_path / "killed")).values()) == {"done"}
    assert same(plan, whole / "store", tmp_path / "killed")

    late, looks = tmp_path / "late", 0

    def stop() -> bool:
        nonlocal looks
        looks += 1
        return looks > 4

    outcomes = list(InProcess().run(plan.jobs, late, None, stop, print))
    assert [o.state for o in outcomes] == ["left", "left"]
    assert "time was over" in outcomes[0].reason
    assert (Store(late).run(key) / "state.pt").exists()
    assert Store(late).begun(plan.jobs[0])
    assert set(states(carry_out([plan], late)).values()) == {"done"}
    assert same(plan, whole / "store", late)


def test_two_processes_on_one_store_train_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, log = planned(tmp_path), tmp_path / "log"
    train = executing.train

    def logged(config: Any, out: Path, *args: Any, **options: Any) -> Any:
        with log.open("a") as file:
            file.write(f"{out.name}\n")
        return train(config, out, *args, **options)

    monkeypatch.setattr(executing, "train", logged)
    monkeypatch.setattr("diascope.studies.engines.inprocess.POLL", 0.05)
    work = lambda: carry_out([plan], tmp_path / "store")
    processes = [forked(work), forked(work)]
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert sorted(log.read_text().split()) == sorted(
        key for keys in plan.runs.values() for key in keys.values()
    )
    assert collect(plan, Store(tmp_path / "store")).complete


def test_workers_side_by_side_come_to_the_same_and_one_that_dies_is_replaced(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, died = planned(tmp_path), tmp_path / "died"
    train = executing.train

    def deadly(*args: Any, **options: Any) -> Any:
        with suppress(FileExistsError):
            died.touch(exist_ok=False)  # two may come here at once: one of them is the first
            os.kill(os.getpid(), signal.SIGKILL)
        return train(*args, **options)

    monkeypatch.setattr(executing, "train", deadly)
    monkeypatch.setattr(workers, "START", "fork")
    monkeypatch.setattr("diascope.studies.engines.inprocess.POLL", 0.05)
    said = list[str]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        done = carry_out(
            [plan], tmp_path / "beside", engine={"name": "inprocess", "workers": 2}, say=said.append
        )
    assert set(states(done).values()) == {"done"}
    assert sum("its process ended (-9); once more" in line for line in said) == 1
    assert same(plan, whole / "store", tmp_path / "beside")


def test_an_interrupt_keeps_what_is_done(
    tmp_path: Path, only_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, examine = planned(tmp_path), executing._examine
    calls = 0

    def pressed(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise KeyboardInterrupt
        return examine(*args)

    monkeypatch.setattr(executing, "_examine", pressed)
    done = carry_out([plan], only_runs)
    assert done.interrupted
    assert states(done) == {
        "train first, seed 0": "there",
        "clean of first, seed 0": "done",
        "train second, seed 0": "there",
        "clean of second, seed 0": "left",
    }
    results = collect(plan, Store(only_runs), done)
    assert not results.complete
    assert results.tables == {"clean": {"first": {"0": plan.tables["clean"]["first"][0]},
                                        "second": {}}}  # fmt: skip


def test_out_of_memory_is_met_by_smaller_batches(
    tmp_path: Path, only_runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diascope.studies.evaluations.predictions import Predictions

    plan, sizes, said = planned(tmp_path, runs={"second": None}), list[int](), list[str]()
    measure = Predictions.__call__

    def hungry(self: Predictions, exam: Any) -> Any:
        sizes.append(exam.batch_size)
        if exam.batch_size > 16:
            raise RuntimeError("CUDA out of memory")
        return measure(self, exam)

    monkeypatch.setattr(Predictions, "__call__", hungry)
    done = carry_out([plan], only_runs, say=said.append)
    assert set(states(done).values()) == {"there", "done"}
    assert sizes == [64, 32, 16]
    assert "toy: clean of first, seed 0: out of memory; on with batches of 16" in said


def test_stopped_is_nothing_that_failures_are_isolated_by(tmp_path: Path) -> None:
    plan = planned(tmp_path)
    with pytest.raises(Stopped):
        executing.attempt(plan.jobs[0], tmp_path / "store", None, stop=lambda: True)
    assert not list((tmp_path / "store").rglob("*.txt"))
    began = time.monotonic()
    done = carry_out([plan], tmp_path / "store", max_hours=1e-9)
    assert set(states(done).values()) == {"left"}
    assert time.monotonic() - began < 5


def test_status_tells_what_another_process_is_at_work_on(tmp_path: Path) -> None:
    plan, store = planned(tmp_path, runs={"second": None}), Store(tmp_path / "store")
    with store.locked(plan.jobs[0].key):
        said = list(status_lines("toy", "small", plan.jobs, store))
    assert said[1] == "  toy: train first, seed 0: running"
    assert said[2] == "  toy: clean of first, seed 0: to do"
    assert list(status_lines("toy", "small", plan.jobs, store))[1].endswith(": to do")
