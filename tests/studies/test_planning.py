"""From a study to its jobs: keys, order, what names ask for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.studies.toystudy import written

from diascope.errors import UserError
from diascope.studies.jobs import Job, Outcome
from diascope.studies.planning import Plan, expanded, joined, plan_study
from diascope.studies.plans import remember, remembered
from diascope.studies.queueing import Queue
from diascope.studies.study import read_study

CLAIMS = {
    "better": {
        "says": "the second is better",
        "test": {"name": "greater", "a": "second/clean.correct", "b": "first/clean.correct"},
    }
}


def planned(folder: Path, only: tuple[str, ...] = (), **changes: Any) -> Plan:
    file = written(folder, **changes)
    return plan_study(read_study(file), file, only)


def labels(plan: Plan) -> list[str]:
    return [job.label.removeprefix("toy: ") for job in plan.jobs]


def test_each_job_comes_as_soon_as_what_it_needs_seed_after_seed(tmp_path: Path) -> None:
    plan = planned(
        tmp_path,
        seeds=[0, 1],
        runs={"first": {"model.weights": "{run:second}"}},
        evaluations={
            "beside": {"measure": "predictions", "on": "held-out", "beside": ["second"]},
            "seeds": {
                "measure": "predictions", "on": "held-out", "runs": ["second"], "beside": "seeds",
            },
        },
    )  # fmt: skip
    of_seed = [
        "train second, seed {}",
        "train first, seed {}",
        "clean of first, seed {}",
        "clean of second, seed {}",
        "beside of first, seed {}",  # the second beside itself is its clean table
    ]
    assert labels(plan) == [
        *[text.format(0) for text in of_seed],
        *[text.format(1) for text in of_seed],
        "seeds of second, seed 1",
        "seeds of second, seed 0",
    ]
    assert plan.tables["beside"]["second"] == plan.tables["clean"]["second"]
    done = set[str]()
    for job in plan.jobs:
        assert set(job.needs) <= done
        done.add(job.key)
    first = next(job for job in plan.jobs if job.label.endswith("train first, seed 1"))
    assert first.content["config"]["model"]["weights"] == f"{{run:{plan.runs['second'][1]}}}"
    assert first.needs == (plan.runs["second"][1],)
    last = plan.jobs[-1]
    assert last.content["beside"] == {"seed 1": plan.runs["second"][1]}


def test_a_run_beside_may_be_that_of_the_next_seed(tmp_path: Path) -> None:
    beside = {"measure": "predictions", "on": "held-out", "runs": ["first"]}
    beside["beside"] = ["second", "second@next", "first@next"]
    plan = planned(tmp_path, seeds=[4, 2, 7], evaluations={"later": beside})
    jobs = {job.key: job for job in plan.jobs}
    for seed, after in ((4, 2), (2, 7), (7, 4)):
        assert jobs[plan.tables["later"]["first"][seed]].content["beside"] == {
            "second": plan.runs["second"][seed],
            "second@next": plan.runs["second"][after],
            "first@next": plan.runs["first"][after],
        }
    with pytest.raises(UserError, match="'@next' needs two seeds at least"):
        planned(tmp_path, seeds=[4], evaluations={"later": beside})
    with pytest.raises(UserError, match="no run 'secnd': did you mean 'second'"):
        planned(tmp_path, seeds=[4, 2], evaluations={"later": {**beside, "beside": ["secnd@next"]}})


def test_equal_configurations_are_one_job_whatever_they_are_called(tmp_path: Path) -> None:
    same = {
        "training": {"epochs": 2, "checkpoint_seconds": 5},
        "objective": {"name": "standard"},
    }
    plan = planned(tmp_path, runs={"again": same, "other": {"training.epochs": 3}})
    assert plan.runs["again"] == plan.runs["first"] != plan.runs["other"]
    assert plan.tables["clean"]["again"] == plan.tables["clean"]["first"]
    assert len([job for job in plan.jobs if job.kind == "train"]) == 3
    elsewhere = planned(tmp_path, title="Another", tests={"unused": {"images": 3}})
    assert len(joined([plan, elsewhere])) == len(plan.jobs)


@pytest.mark.parametrize(
    "change",
    [
        {"seeds": [3]},
        {"runs": {"first": {"data.size": 20}}},
        {"runs": {"first": {"data.split.seed": 4}}},
        {"runs": {"first": {"model.options.channels": [4, 4, 4, 8]}}},
        {"runs": {"first": {"objective": {"name": "saliency-guided", "k": 0.5}}}},
    ],
)
def test_what_a_run_depends_on_is_in_its_key(tmp_path: Path, change: dict[str, Any]) -> None:
    keys = [set(planned(tmp_path, **each).runs["first"].values()) for each in ({}, change)]
    assert keys[0].isdisjoint(keys[1])


@pytest.mark.parametrize(
    "change",
    [
        {"tests.held-out.images": 3},
        {"tests.held-out.part": "val"},
        {"evaluations.clean.beside": ["second"]},
    ],
)
def test_what_a_table_depends_on_is_in_its_key(tmp_path: Path, change: dict[str, Any]) -> None:
    plans = [planned(tmp_path, **each) for each in ({}, change)]
    assert plans[0].runs == plans[1].runs
    tables = [plan.tables["clean"]["first"][0] for plan in plans]
    assert tables[0] != tables[1]


def test_keys_depend_on_no_folder(tmp_path: Path) -> None:
    plans = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        plans.append(planned(tmp_path / name, every_run={"data.name": "folder:{data}/x"}))
    assert [job.key for job in plans[0].jobs] == [job.key for job in plans[1].jobs]
    content = plans[0].jobs[0].content
    assert str(tmp_path) not in json.dumps(content)
    found = expanded(content, tmp_path / "store", tmp_path / "all")
    assert found["config"]["data"]["name"] == f"folder:{tmp_path}/all/x"
    with pytest.raises(UserError, match="--data"):
        expanded(content, tmp_path / "store", None)


@pytest.mark.parametrize(
    ("only", "expected"),
    [
        (("first",), ["train first, seed 0"]),
        (("alone",), ["train second, seed 0", "alone of second, seed 0"]),
        (
            ("better",),
            [
                "train first, seed 0",
                "clean of first, seed 0",
                "train second, seed 0",
                "clean of second, seed 0",
            ],
        ),
    ],
)
def test_only_keeps_what_the_names_need(
    tmp_path: Path, only: tuple[str, ...], expected: list[str]
) -> None:
    alone = {"measure": "predictions", "on": "more", "runs": ["second"]}
    changes = {
        "claims": CLAIMS,
        "evaluations": {"alone": alone},
        "tests": {"more": {"images": 2}},
        "runs": {"third": {"training.epochs": 5}},
    }
    plan = planned(tmp_path, only, **changes)
    assert labels(plan) == expected
    assert plan.every == planned(tmp_path, **changes).jobs


def test_only_knows_its_names(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--only frist: .* did you mean 'first'"):
        planned(tmp_path, ("frist",))


def test_a_plan_is_remembered_until_a_file_or_what_is_asked_changes(tmp_path: Path) -> None:
    plan, store = planned(tmp_path), tmp_path / "store"
    remember(plan.jobs, store, ["small"], plan.file)
    found = remembered(store, ["small"], plan.file)
    assert found is not None
    assert [(j.key, j.label, j.needs) for j in found] == [
        (j.key, j.label, j.needs) for j in plan.jobs
    ]
    assert remembered(store, ["paper"], plan.file) is None
    plan.file.write_text(plan.file.read_text() + "\n# more\n")
    assert remembered(store, ["small"], plan.file) is None


def job(name: str, *needs: Job) -> Job:
    return Job("train", name, {"name": name}, tuple(each.key for each in needs))


def test_a_queue_leaves_what_needs_a_failure_and_does_the_rest() -> None:
    a, b = job("a"), job("b")
    c, d = job("c", a), job("d", b)
    e = job("e", c)
    queue = Queue([a, b, c, d, e])
    assert (queue.next(), queue.next()) == (a, b)
    assert queue.next() is None  # the others need these
    gone = list(queue.settle(Outcome(a, "failed", 1.0, "broken")))
    assert [(o.job, o.state) for o in gone] == [(a, "failed"), (c, "left"), (e, "left")]
    assert gone[1].reason == "needs 'a', which failed"
    assert gone[2].reason == "needs 'c', which was not done"
    assert list(queue.settle(Outcome(b, "done"))) == [Outcome(b, "done")]
    assert queue.next() == d
    assert [o.job for o in queue.leave("late")] == [d]
    assert queue.next() is None


def test_a_queue_comes_back_to_what_is_busy_after_the_others() -> None:
    a, b = job("a"), job("b")
    queue = Queue([a, b])
    assert queue.next() == a
    assert not queue.postpone(a)  # b can be done meanwhile
    assert queue.next() == b
    assert queue.postpone(b)
    assert queue.next() in (a, b)
