"""The driver of the Ray engine, on workers that are functions; Ray itself is not needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from diascope.errors import UserError
from diascope.studies.engines import ray as engine
from diascope.studies.jobs import Job, Outcome
from diascope.studies.queueing import Queue


class Died(Exception):
    pass


class Workers:
    """A cluster whose workers tell what `tells` has for the label of a job, one time each."""

    lost_worker = (Died,)

    def __init__(self, folder: Path, room: int = 2, **tells: list[object]) -> None:
        folder.mkdir(exist_ok=True)
        self.box, self.engine = engine._Box(folder), engine.Ray(lost=2)
        self.space, self.tells = room, tells
        self.begun: list[str] = []
        self.most, self.failed, self.killed = 0, {}, []
        self.now: dict[int, Job] = {}

    def room(self):
        return self.space

    def begin(self, job):
        self.begun.append(job.label)
        self.now[len(self.begun)] = job
        self.most = max(self.most, len(self.now))
        return len(self.begun)

    def finished(self, references):
        ready = [r for r in references if self._next(r) is not None]
        return ready[:1]

    def _next(self, reference):
        tells = self.tells.get(self.now[reference].label, ["done"])
        return tells[0] if tells else "done"

    def result(self, reference):
        what, job = self._next(reference), self.now.pop(reference)
        if self.tells.get(job.label):
            self.tells[job.label].pop(0)
        if isinstance(what, Exception):
            raise what
        if what in ("done", "failed"):
            return "done", Outcome(job, what, 1.0, "" if what == "done" else "a reason")
        return what, f"{job.label}: {what}"

    def fail(self, job, text):
        self.failed[job.label] = text

    def kill(self, reference):
        self.killed.append(self.now.pop(reference).label)


def jobs():
    a, b = (Job("train", label, {"config": label}) for label in "ab")
    c = Job("train", "c", {"config": "c"}, (a.key,))
    return [a, b, c]


def drive(workers, stop=lambda: False, all_jobs=None):
    said = []
    driver = engine._Driver(workers, Queue(all_jobs or jobs()), stop, said.append)
    found = {outcome.job.label: outcome for outcome in driver.outcomes()}
    return found, said


def test_each_job_comes_after_its_needs_and_as_many_at_a_time_as_there_is_room(tmp_path):
    workers = Workers(tmp_path)
    found, _ = drive(workers)
    assert {label: outcome.state for label, outcome in found.items()} == dict.fromkeys(
        "abc", "done"
    )
    assert workers.begun == ["a", "b", "c"]
    assert workers.most == 2
    one = Workers(tmp_path, room=1)
    drive(one)
    assert one.most == 1


def test_a_job_is_begun_again_when_its_worker_dies_but_not_for_ever(tmp_path):
    workers = Workers(tmp_path, a=[Died(), Died()])
    found, said = drive(workers)
    assert found["a"].state == "done"
    assert workers.begun.count("a") == 3
    assert said == ["a: its worker died (Died); begun again"] * 2
    workers = Workers(tmp_path, a=[Died(), Died(), Died("no memory")])
    found, _ = drive(workers)
    assert {label: outcome.state for label, outcome in found.items()} == {
        "a": "failed",
        "b": "done",
        "c": "left",
    }
    assert found["a"].reason == "3 workers died of it, the last by Died"
    assert "no memory" in workers.failed["a"]


def test_a_failure_leaves_what_needs_it_and_nothing_else(tmp_path):
    found, _ = drive(Workers(tmp_path, a=["failed"]))
    assert [found[label].state for label in "abc"] == ["failed", "done", "left"]
    assert "needs 'a', which failed" in found["c"].reason


def test_a_job_that_is_held_elsewhere_rests_and_is_tried_again(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "REST", 0.01)
    workers = Workers(tmp_path, a=["busy", "busy"])
    found, _ = drive(workers)
    assert found["c"].state == "done"
    assert workers.begun.count("a") == 3


def test_when_it_is_time_the_workers_are_told_and_the_rest_is_left(tmp_path):
    workers = Workers(tmp_path, room=1, a=["stopped"])
    found, _ = drive(workers, stop=lambda: bool(workers.begun))
    assert (tmp_path / "stop").exists()
    assert {outcome.state for outcome in found.values()} == {"left"}
    assert workers.begun == ["a"]


def test_workers_that_do_not_stop_are_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "GRACE", 0.01)
    workers = Workers(tmp_path, room=1, a=[None])
    found, _ = drive(workers, stop=lambda: bool(workers.begun))
    assert workers.killed == ["a"]
    assert {outcome.state for outcome in found.values()} == {"left"}


def test_one_job_waits_in_a_cluster_that_has_lost_all_its_machines(tmp_path):
    workers = Workers(tmp_path, room=0)
    found, _ = drive(workers)
    assert {outcome.state for outcome in found.values()} == {"done"}
    assert workers.most == 1


def test_a_machine_that_does_not_see_the_store_ends_it_all(tmp_path):
    with pytest.raises(UserError, match="a: blind"):
        drive(Workers(tmp_path, a=["blind"]))
    job = jobs()[0]
    what, text = engine._work(job, "/store", None, str(tmp_path / "absent"), {}, 1, 0, 0.5)
    assert what == "blind"
    assert "does not see /store" in text


def test_what_workers_say_is_said_once(tmp_path):
    box = engine._Box(tmp_path)
    (tmp_path / "k.line").write_text("a: epoch 1")
    assert list(box.heard()) == ["a: epoch 1"]
    assert list(box.heard()) == []
    (tmp_path / "k.line").write_text("a: epoch 2")
    assert list(box.heard()) == ["a: epoch 2"]


def test_without_ray_one_line_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"pip install 'diascope\[ray\]'"):
        list(engine.Ray().run(jobs(), tmp_path, None, lambda: False, print))


def test_settings_that_cannot_be_are_refused():
    with pytest.raises(ValueError, match="at least 0"):
        engine.Ray(num_cpus=-1)
