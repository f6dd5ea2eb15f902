"""The Markdown of studies: one study, and a summary of several that is complete by itself."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from dataclasses import replace

import pytest
from tests.report.studyfactory import FIGURES, make_study
from tests.studies.toystudy import written
from typer.testing import CliRunner

from diascope.cli.main import app
from diascope.report.study import words, write_summary
from diascope.report.study.markdown import study_markdown
from diascope.report.study.method import totals
from diascope.studies.results import JobResult


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def results(store):
    return make_study(store)


@pytest.fixture(scope="module")
def summary(results, store):
    return write_summary([results, replace(results, name="p4b", title="Another")], store)


def table_of(text: str) -> list[str]:
    """The rows of the first table."""
    lines = text.splitlines()
    first = next(k for k, line in enumerate(lines) if line.startswith("|"))
    end = next(k for k in range(first, len(lines)) if not lines[k].startswith("|"))
    return lines[first:end]


def test_the_claims_of_several_studies_are_one_table(summary):
    rows = table_of(summary)
    assert rows[0] == (
        "| claim | published | ours, with 95% interval | p corrected | verdict | hardware | hours |"
    )
    assert len(rows) == 2 + 2 * (1 + 9)
    assert {row.count("|") - row.count("\\|") for row in rows} == {8}
    assert "Of 18 claims 2 are supported" in summary
    assert words.HOLM in summary


@pytest.mark.parametrize("several", [True, False])
def test_below_five_seeds_markdown_shows_each_with_its_sign_and_of_whom_it_speaks(
    results, summary, several
):
    text = summary if several else study_markdown(results)
    (row,) = [line for line in table_of(text) if "`maps` " in line][:1]
    assert "seed 0: +0.001; seed 1: +0.021; seed 2: +0.041" in row
    assert "| 1.000 |" in row
    apart = replace(results.claims[3].decision, by_seed={0: -0.003, 1: -0.004, 2: 0.029})
    claims = [replace(results.claims[3], decision=apart)]
    made = write_summary if several else lambda some: study_markdown(some[0])
    text = made([replace(results, claims=claims)])
    assert "seed 0: −0.003; seed 1: −0.004; seed 2: +0.029; the seeds differ in sign" in text
    assert words.FEW_SEEDS in text


def test_five_seeds_are_not_listed_in_the_table(store):
    text = write_summary([make_study(store, (0, 1, 2, 3, 4), images=12)])
    assert "seed 0:" not in "\n".join(table_of(text))
    assert words.FEW_SEEDS not in text


def test_the_summary_holds_every_figure_as_numbers_with_its_line(summary):
    for name, figure in FIGURES.items():
        assert f"### {figure['title']}" in summary
        assert (
            f"`diascope study report studies/p4a.yaml --scale small --data DATA --figure {name}`"
            in summary
        )
    assert "| **strongest attack** |" in summary
    assert "Images: 80." in summary
    assert "- A quarter of the channels" in summary


def test_the_commands_run_as_printed_but_for_the_folder_of_data(summary, results):
    (line, *_) = [x for x in summary.splitlines() if x.startswith("diascope study run")]
    assert line == "diascope study run studies/p4a.yaml --scale small --data DATA"
    assert "Made by, with DATA the folder of all data:" in summary
    without = replace(results, regenerate="diascope study run a.yaml")
    text = write_summary([without])
    assert "\ndiascope study run a.yaml\n" in text
    assert "Made by:" in text


def test_work_that_studies_share_is_counted_once(results):
    def study(name, *keys):
        jobs = [JobResult(key, f"{name}: {key}", "train", "done", 3600.0) for key in keys]
        return replace(results, name=name, jobs=jobs, seconds=3600.0 * len(keys))

    text = write_summary([study("one", "a", "b"), study("two", "b", "c"), study("three", "d")])
    hours = [line.split(" | ")[-1] for line in table_of(text) if line.startswith("| `fgsm`")]
    assert hours == ["2, of which 1 shared |", "2, of which 1 shared |", "1 |"]
    assert "Hours of all, each job once: 4." in text


def test_checks_and_what_speaks_against_stand_under_each_study(summary):
    check = "iterative beats single-step"
    assert "- attacked: standard (3 seeds) none failed; " in summary
    assert f"; sgt (3 seeds) {check} failed in 2 of 3; asgt (3 seeds) none failed" in summary
    told = f"- Check on gradient masking '{check}' failed (attacked: sgt in 2 of 3 seeds)"
    assert told in summary
    assert "- Not done, and missing in what is shown (attacked of asgt, seed 2)" in summary


def test_a_study_tells_which_of_its_hours_were_first_spent_for_another(results, tmp_path):
    jobs = [JobResult(key, f"two: {key}", "train", "there", 3600.0) for key in ("a", "b")]
    (tmp_path / "runs").mkdir()
    for job, name in zip(jobs, ("one", "two"), strict=True):
        (tmp_path / "runs" / f"{job.key}.json").write_text(json.dumps({"label": f"{name}: x"}))
    told = dict(totals(replace(results, name="two", jobs=jobs, seconds=7200.0), tmp_path))
    assert (told["Together"], told["Of which first done for"]) == ("2 h", "one 1 h")


def test_the_lines_of_a_summary_do_what_they_say(tmp_path):
    figure = {"kind": "table", "title": "Loss", "columns": {"loss": "{run}/clean.loss"}}
    files = [
        str(written(tmp_path, f"{name}.yaml", title=name, figures={"losses": figure}))
        for name in ("one", "two")
    ]
    store = tmp_path / "store"
    store.mkdir()
    make = ["study", "report", *files, "--store", str(store)]
    assert CliRunner().invoke(app, make).exit_code == 0
    text = (store / "reports" / "summary.md").read_text()
    lines = re.findall(r"^`diascope (study report .*)`$", text, re.MULTILINE)
    assert len(lines) == 2
    shutil.rmtree(store / "reports")
    for line in lines:
        assert CliRunner().invoke(app, shlex.split(line)).exit_code == 0
    found = {str(path.relative_to(store)) for path in store.rglob("*.csv")}
    assert found == {f"reports/{name}-small/figures/losses.csv" for name in ("one", "two")}
    assert "diascope study run" in text.rpartition("```")[0]
