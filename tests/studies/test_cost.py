"""What a plan costs: from records, from a probe, and on GPUs that are not here."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from diascope import hardware
from diascope.studies import cost as costing
from diascope.studies.cost import cost_line, cost_table, plan_cost
from diascope.studies.costs import probe as probing
from diascope.studies.costs.records import recorded
from diascope.studies.execute import execute
from diascope.studies.jobs import Job
from diascope.studies.store import Store
from diascope.training.config import read_config

CONFIG = {
    "data": {
        "name": "phantom:images=40,size=16,seed=0",
        "size": 16,
        "split": {"seed": 0, "fractions": [0.5, 0.25, 0.25]},
    },
    "model": {"name": "resnet18", "options": {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4]}},
    "training": {"epochs": 2, "batch_size": 8, "device": "cpu", "augment": None},
}


def training(label="train a", **changes):
    config = {**CONFIG, **changes}
    return Job("train", label, {"config": read_config(config).to_dict()})


def examination(run):
    content = {"run": run.key, "test": {"part": "test"}, "beside": {}}
    return Job("examine", "clean of a", {**content, "measure": {"name": "predictions"}}, (run.key,))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A store in which a training and its examination are done."""
    store = tmp_path_factory.mktemp("store")
    run = training()
    for job in (run, examination(run)):
        execute(job, store, None)
    return store, run


def adversarial(**more):
    attack = {"name": "pgd", "steps": 2, "eps": 0.1, **more}
    return {"objective": {"name": "adversarial", "attack": attack}}


def test_what_is_done_costs_what_it_took_and_nothing_more(done):
    store, run = done
    found = plan_cost([run, examination(run)], store, probe=False)
    for cost in found.jobs:
        assert cost.seconds == Store(store).record(cost.job)["seconds"]
        assert (cost.left, cost.source) == (0.0, "done")
    assert found.left == 0


def test_another_of_the_kind_costs_what_its_steps_and_epochs_do(done):
    store, run = done
    table = pd.read_csv(Store(store).run(run.key) / "metrics.csv")
    longer = training(training={**CONFIG["training"], "epochs": 30, "seed": 1})
    found = plan_cost([longer, examination(longer)], store, probe=False)
    images = sum(Store(store).record(run)["data"]["images"]["train"].values())
    epoch = images / table.images_per_second.median() + table.seconds_validation.median()
    assert found.jobs[0].left == pytest.approx(30 * epoch, rel=1e-6)
    assert found.jobs[0].source == "1 training of the store"
    record = Store(store).record(examination(run))
    assert found.jobs[1].left == pytest.approx(record["seconds"], rel=0.01)
    assert "examinations of the store" in found.jobs[1].source
    assert found.left == pytest.approx(sum(cost.left for cost in found.jobs))


def test_a_kind_that_was_never_done_is_not_known_without_a_probe(done):
    store, _ = done
    found = plan_cost([training(**adversarial())], store, probe=False)
    assert found.jobs[0].left is None
    assert found.unknown == [found.jobs[0]]
    assert "1 jobs whose cost is not known" in cost_line(found)


def test_a_probe_is_made_once_a_kind_and_kept(done, monkeypatch):
    store, _ = done
    jobs = [training(**adversarial(eps=eps)) for eps in (0.1, 0.2)]
    first = plan_cost(jobs, store)
    assert first.jobs[0].left == first.jobs[1].left > 0
    assert "timed on this machine's CPU" in first.jobs[0].source
    assert len(list((store / "probes").glob("*.json"))) == 1

    def measured(stage):
        raise AssertionError("measured again")

    monkeypatch.setattr(probing, "_measured", measured)
    assert plan_cost(jobs, store).left == first.left


def test_what_takes_too_long_to_time_is_left_for_the_next_time(done, monkeypatch, tmp_path):
    jobs = [training(training={**CONFIG["training"], "batch_size": batch}) for batch in (4, 6)]
    monkeypatch.setattr(costing, "PATIENCE", 0.0)
    found = plan_cost(jobs, tmp_path)
    assert [cost.left is None for cost in found.jobs] == [False, True]
    assert [cost.left is None for cost in plan_cost(jobs, tmp_path).jobs] == [False, False]


def test_another_machine_knows_nothing_of_this_one(done, monkeypatch):
    store, _ = done
    assert recorded(store)
    other = {**hardware.describe(), "cpu": "another"}
    monkeypatch.setattr(hardware, "describe", lambda: other)
    assert not recorded(store)


def test_data_that_are_not_here_are_said_and_the_rest_is_counted(done, tmp_path):
    store, _ = done
    data = {**CONFIG["data"], "name": f"{tmp_path}/nowhere.csv"}
    found = plan_cost([training(), training(data=data)], store, probe=False)
    assert [cost.left for cost in found.jobs] == [0.0, None]
    assert "nowhere.csv" in found.jobs[1].source


def test_the_table_of_gpus_names_the_best_way_and_what_is_assumed(done):
    store, run = done
    others = [training(training={**CONFIG["training"], "seed": seed}) for seed in range(1, 4)]
    lines = cost_table([run, *others, examination(run)], store, None, (1, 4))
    assert len(lines) == 6
    assert lines[2].startswith("| 1 |")
    assert lines[2].count("one after the other") == 1
    assert "side by side" in lines[3]
    assert "assumed" in lines[4]
    assert "60 TFLOP/s" in lines[4]


def test_jobs_that_cannot_be_counted_are_named_under_the_table(tmp_path):
    data = {**CONFIG["data"], "name": "{data}/nowhere.csv"}
    lines = cost_table([training(data=data)], tmp_path, None, (1,))
    assert lines[-1].startswith("train a: not counted: ")
    assert "--data" in lines[-1]


def test_a_broken_probe_is_made_anew(done):
    store, _ = done
    job = training(training={**CONFIG["training"], "batch_size": 5})
    before = set((store / "probes").glob("*"))
    plan_cost([job], store)
    (file,) = set((store / "probes").glob("*.json")) - before
    good = json.loads(file.read_text())
    file.write_text("{")
    assert plan_cost([job], store).left > 0
    again = json.loads(file.read_text())
    assert again.keys() == good.keys()
    assert again["machine"] == good["machine"]
