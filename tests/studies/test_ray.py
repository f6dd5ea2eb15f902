"""Jobs on a Ray cluster of two nodes, of which a worker and a node are killed at work."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("ray", reason="Ray is not installed: pip install 'diascope[ray]'")

from diascope.errors import UserError
from diascope.models.checkpoint import WEIGHTS
from diascope.studies.engines import ray as engine
from diascope.studies.engines.inprocess import InProcess
from diascope.studies.planning import plan_study
from diascope.studies.store import Store
from diascope.studies.study import read_study
from diascope.training.state import STATE

pytestmark = [
    pytest.mark.slow,
    # Ray leaves files of its log open, and pipes of processes that it has killed
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:subprocess .* is still running:ResourceWarning"),
]

STUDY = """
title: three trainings, one of which starts from another, and one that cannot be
seeds: [0]
every_run:
  data:
    name: "phantom:images=36,size=16,seed=0"
    size: 16
    split: {seed: 0, fractions: [0.5, 0.2, 0.3]}
  model: {name: resnet18, options: {layers: [1, 1, 1, 1], channels: [8, 8, 8, 8]}}
  training:
    epochs: 12
    batch_size: 6
    device: cpu
    precision: 32-true  # as in this process, which knows no bfloat16 while it tests
    checkpoint_seconds: 0
    augment: null
runs:
  first: {}
  second: {training.optimizer.lr: 0.01}
  tuned: {model.weights: "{run:first}", training.epochs: 1}
  broken: {data.name: "{data}/nowhere.csv"}
  after-broken: {model.weights: "{run:broken}"}
tests: {own: {part: test}}
evaluations: {clean: {measure: predictions, on: own, runs: [first, second, tuned]}}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """A head and another node of one CPU each; the other node can be taken away."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    from ray.cluster_utils import Cluster

    small = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    patient = {"health_check_timeout_ms": 120_000}  # a busy machine is not a dead one
    head = {"include_dashboard": False, "_system_config": patient, **small}
    nodes = Cluster()
    _begun(nodes, head)
    _begun(nodes, small)
    ray.init(address=nodes.address, log_to_driver=False, logging_level="ERROR")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def _begun(nodes, settings, times=3):
    """Begin a node, which a busy machine may not do within Ray's 30 seconds."""
    for _ in range(times):
        try:
            return nodes.add_node(**settings)
        except Exception as error:
            if "timed out during startup" not in str(error):
                raise
    return pytest.skip(f"Ray began no node within its 30 seconds, {times} times: a busy machine")


@pytest.fixture(autouse=True)
def _hurry(monkeypatch):
    monkeypatch.setattr(engine, "POLL", 0.05)


@pytest.fixture
def jobs(tmp_path):
    file = tmp_path / "toy.yaml"
    file.write_text(STUDY)
    return plan_study(read_study(file), file).jobs


class Killer:
    """Kills a worker, and takes a node away, as soon as each is in the middle of a training."""

    def __init__(self, cluster, store, jobs):
        self.cluster, self.store = cluster, store
        self.trainings = [job for job in jobs if job.kind == "train"]
        (self.other,) = cluster.worker_nodes
        self.at_work = {}  # pid -> key
        self.killed, self.removed, self.said = None, None, []

    def say(self, line):
        self.said.append(line)
        for job in self.trainings:
            if line.startswith(f"{job.label}: begun"):
                self.at_work[int(line.split()[-1])] = job.key

    def stop(self):
        for pid, key in list(self.at_work.items()):
            theirs = self._parent(pid) == self._raylet()
            if (self.removed if theirs else self.killed) is None and self._held(pid, key):
                if theirs:
                    self.removed = key
                    self.cluster.remove_node(self.other, allow_graceful=False)
                else:
                    self.killed = key
                del self.at_work[pid]
                os.kill(pid, signal.SIGKILL)  # or it might end its work without its node
        return False

    def _held(self, pid, key):
        """Whether the worker stands still in the middle of the training: it cannot end it now."""
        run = self.store / "runs" / key
        if not (run / STATE).exists():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
            while (state := self._state(pid)) not in "TZX":
                time.sleep(0.001)
            if state == "T" and not (run / WEIGHTS).exists():
                return True
            os.kill(pid, signal.SIGCONT)
        return False

    def _raylet(self):
        return self.other.all_processes["raylet"][0].process.pid if not self.removed else -1

    @classmethod
    def _parent(cls, pid):
        return int(cls._status(pid)[1])

    @classmethod
    def _state(cls, pid):
        return cls._status(pid)[0]

    @staticmethod
    def _status(pid):
        """The process's state (a letter) and its parent; of one that is gone X and 0."""
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        except OSError:
            return "X", "0"


def same(here, there, jobs):
    for job in jobs:
        if job.kind == "train":
            one, other = (
                load_file(s / "runs" / job.key / "model.safetensors") for s in (here, there)
            )
            assert all(torch.equal(one[name], other[name]) for name in one)
        else:
            pd.testing.assert_frame_equal(
                Store(here).table(job.key), Store(there).table(job.key), check_exact=True
            )


def test_a_worker_and_a_node_die_and_the_numbers_are_those_of_one_process(cluster, jobs, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    expected = {o.job.key: o.state for o in InProcess().run(jobs, alone, None, _never, _silent)}
    killer = Killer(cluster, shared, jobs)
    found = list(engine.Ray().run(jobs, shared, tmp_path, killer.stop, killer.say))
    assert killer.killed
    assert killer.removed
    assert sum("its worker died" in line for line in killer.said) >= 2
    assert {outcome.job.key: outcome.state for outcome in found} == expected
    done = [outcome.job for outcome in found if outcome.state == "done"]
    assert [sum(job.kind == kind for job in done) for kind in ("train", "examine")] == [3, 3]
    same(alone, shared, done)
    failed = {o.job.label.split()[2].strip(","): o.reason for o in found if o.state != "done"}
    assert "nowhere.csv" in failed["broken"]
    assert "broken" in failed["after-broken"]
    assert not list((shared / "ray").iterdir())

    again = list(engine.Ray().run(done, shared, None, _never, _silent))
    assert {outcome.state for outcome in again} == {"there"}


def test_what_is_stopped_goes_on_later_to_the_same_numbers(cluster, jobs, tmp_path):
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    job = jobs[0]

    def begun():
        return (shared / "runs" / job.key / STATE).exists()

    (outcome,) = engine.Ray().run([job], shared, None, begun, _silent)
    assert (outcome.state, Store(shared).begun(job)) == ("left", True)
    assert Store(shared).record(job) is None
    (outcome,) = engine.Ray().run([job], shared, None, _never, _silent)
    assert outcome.state == "done"
    list(InProcess().run([job], alone, None, _never, _silent))
    same(alone, shared, [job])


def test_a_job_that_another_process_holds_is_waited_for(cluster, jobs, tmp_path, monkeypatch):
    monkeypatch.setattr(engine, "REST", 0.2)
    began = time.monotonic()
    with Store(tmp_path).locked(jobs[0].key) as mine:
        assert mine
        found = list(
            engine.Ray().run(
                [jobs[0]], tmp_path, None, lambda: time.monotonic() - began > 1.5, _silent
            )
        )
    assert [outcome.state for outcome in found] == ["left"]


def test_a_cluster_without_room_is_said(cluster, jobs, tmp_path):
    with pytest.raises(UserError, match="no machine of the cluster has 64 CPUs and 0 GPUs"):
        list(engine.Ray(num_cpus=64).run(jobs, tmp_path, None, _never, _silent))


def _never():
    return False


def _silent(line):
    pass
