"""What speaks against the numbers of a study, and how these were measured, as its report shows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from tests.report.studyfactory import make_study
from tests.studies.toystudy import written

from diascope.evaluation.tables import write_table
from diascope.report.study import write_study_report
from diascope.report.study.against import against
from diascope.report.study.figures import Seen, build_figure, counts_note
from diascope.report.study.measured import how_measured
from diascope.report.study.values import Values
from diascope.studies.planning import plan_study
from diascope.studies.run import collect
from diascope.studies.store import Store
from diascope.studies.study import read_study


def test_results_tell_the_doubts_and_the_images_of_each_job(tmp_path: Path) -> None:
    file = written(tmp_path, runs={"second": None})
    plan, store = plan_study(read_study(file), file), Store(tmp_path / "store")
    train, examine = plan.jobs
    machine = {"seconds": 1.0, "hardware": {"cpu": "a processor", "threads": 1}}
    store.run(train.key).mkdir(parents=True)
    (store.run(train.key) / "model.safetensors").write_bytes(b"")
    store.finish(train, **machine, doubts=["the loss rose"])
    store.keep_table(examine, pd.DataFrame({"id": [0, 1], "path": ["a", "b"]}))
    store.finish(
        examine, **machine, doubts=["slow"], images=2, left_out={"not drawn": 7}, masking=None,
        about={"doubts": ["the gradient is zero", "slow"]},
    )  # fmt: skip
    first, second = collect(plan, store).jobs
    assert (first.doubts, first.images, first.left_out) == (["the loss rose"], None, {})
    assert second.doubts == ["slow", "the gradient is zero"]
    assert (second.images, second.left_out) == (2, {"not drawn": 7})


@pytest.fixture
def results(tmp_path):
    return make_study(tmp_path, images=12)


def test_what_was_doubted_or_left_out_is_told_once_with_where(results):
    jobs = [
        replace(
            job,
            doubts=["the gradient is zero"] if job.label.startswith("attacked of sgt") else [],
            left_out={"not drawn": 9920, "unreadable": 3} if job.kind == "examine" else {},
        )
        for job in results.jobs[:-1]
    ]
    about = {"attacked": {"sgt": {"0": {"below_8_bits": [0.001]}}}}
    found = against(replace(results, jobs=jobs, about=about, masking={}))
    assert [each.line for each in found[:3]] == [
        "the gradient is zero (attacked of sgt, seeds 0, 1 and 2)",
        "3 images left out: unreadable (attacked of standard, seeds 0, 1 and 2; attacked of sgt, "
        "seeds 0, 1 and 2; attacked of asgt, seeds 0 and 1)",
        "eps 0.001: smaller than any change that 8 bits can hold (attacked)",
    ]
    assert not any("not drawn" in each.told for each in found)


def test_a_page_says_what_speaks_against_its_numbers_or_that_nothing_does(results, tmp_path):
    jobs = [replace(job, doubts=["it wavers"]) for job in results.jobs]
    bare = {**results.study, "figures": {}}
    page = write_study_report(replace(results, jobs=jobs, study=bare), tmp_path, tmp_path / "a")
    assert '<section id="against"' in page.read_text()
    assert "it wavers" in page.read_text()
    assert (
        "- it wavers (train standard, seeds 0, 1 and 2;" in (tmp_path / "a/results.md").read_text()
    )
    sound = replace(results, jobs=results.jobs[:-1], masking={}, claims=[], study=bare)
    text = write_study_report(sound, tmp_path, tmp_path / "b").read_text()
    assert "No doubt was recorded" in text


def test_every_setting_of_an_evaluation_is_told_defaults_too(results):
    spec = {
        "name": "robust", "epsilons": [0.1, 0.2], "steps": 20, "queries": 100,
        "attacks": {"pgd": {"name": "pgd", "steps": 40}}, "strongest_images": 40,
        "masking_images": 0,
    }  # fmt: skip
    evaluations = {"attacked": {"measure": spec, "on": "test"}}
    study = {**results.study, "evaluations": evaluations, "tests": {"test": {"part": "test"}}}
    (found,) = how_measured(replace(results, study=study))
    told = dict(found.settings)
    assert found.measure == "robust"
    assert told["Images examined"] == "80"
    assert told["Images left out"] == "9\u202f920 not drawn"
    assert told["Strongest images"] == "40"
    assert told["Masking images"] == "0, the checks were not run"
    assert told["Images measured"] == "all"
    assert (told["Epsilons"], told["Steps"], told["Queries"]) == ("0.1, 0.2", "20", "100")
    assert told["Attacks"].startswith("pgd (loss ce, restarts 1, returns last, steps 40")
    built = {"pgd": {"name": "pgd", "norm": "linf", "steps": 40, "restarts": 2, "loss": "ce"}}
    about = {"attacked": {"sgt": {"0": {"attacks": built}}}}
    (found,) = how_measured(replace(results, study=study, about=about))
    assert dict(found.settings)["Attacks"] == "pgd (steps 40, restarts 2, loss ce)"


def test_integration_steps_are_told(results):
    explainers = {"uniform": {"name": "integrated_gradients", "baseline": "uniform", "steps": 20}}
    maps = {"measure": {"name": "maps", "explainers": explainers, "images": 150}, "on": "test"}
    study = {**results.study, "evaluations": {"integrated": maps}}
    (found,) = how_measured(replace(results, study=study))
    assert "; Images measured: 150; " in found.line
    assert "uniform: integrated_gradients (baseline uniform, draws 1, steps 20, rule" in found.line


def test_a_table_of_attacks_on_different_images_says_on_how_many(results, tmp_path):
    for key in [k for by in results.tables["attacked"].values() for k in by.values()]:
        path = tmp_path / "tables" / f"{key}.parquet"
        table = pd.read_parquet(path)
        table.loc[5:, "strongest@0.25"] = float("nan")
        write_table(table, path, {"key": key})
    columns = {"FGSM .25": "{run}/attacked.fgsm@0.25", "worst": "{run}/attacked.strongest@0.25"}
    figure = build_figure({"kind": "table", "title": "T", "columns": columns}, "f")
    drawn = figure.show(Seen(results, Values(results, tmp_path), tmp_path))
    assert counts_note(drawn) == ["Images: 12 (FGSM .25); 5 (worst)."]


def test_the_settings_of_every_study_of_the_papers_can_be_told(results):
    files = sorted((Path(__file__).parents[2] / "studies").glob("p*.yaml"))
    assert len(files) > 20
    for file in files:
        study = read_study(file)
        made = replace(results, study=study.model_dump(mode="json"), tables={}, about={}, jobs=[])
        told = how_measured(made)
        assert [each.evaluation for each in told] == list(study.evaluations)
        assert not any("None" in each.line or "{'" in each.line for each in told)
