"""`diascope study` as its users meet it."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys

import pytest
from tests.forked import Forked
from tests.studies.toystudy import written

CLAIM = {"says": "equal", "test": {"name": "equal", "a": "first/clean.loss", "b": 1, "within": 9}}
DRAWN = {"f": {"kind": "bars", "values": {"of": "{run}/clean.correct"}}}


def test_run_then_status_then_report(tmp_path, diascope):
    file = written(tmp_path, claims={"c": CLAIM})
    words = (file, "runs.second=", "--store", tmp_path / "s")
    planned = diascope("study", "run", *words, "--dry-run")
    assert planned.returncode == 0
    assert "toy, small: 1 trainings to do, 0 there; 1 examinations to do" in planned.stderr
    assert "on this machine" in planned.stderr
    assert not (tmp_path / "s" / "runs").exists()

    done = diascope("study", "run", *words, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    told = re.search(r"toy: c: supported, of this one model of each run: effect (.*)", done.stderr)
    assert told
    assert re.fullmatch(
        r"-?\d\.\d{3} \[-?\d\.\d{3}, -?\d\.\d{3}\], p (< 0\.001|= 0\.\d{3})", told[1]
    )
    assert (tmp_path / "out" / "report.html").exists()
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    figure = diascope("study", "report", *words, "--figure", "f")
    assert (figure.returncode, "no figure 'f'" in figure.stderr) == (2, True)
    line = f"diascope study run {file} runs.second= --scale small --store {tmp_path / 's'}"
    assert results["regenerate"] == line
    assert results["complete"]

    # Status of what was run asks neither for torch nor for the data.
    code = "import sys; from diascope.cli.main import app; app(standalone_mode=False); "
    code += "sys.exit('torch' in sys.modules)"
    told = subprocess.run(
        [sys.executable, "-c", code, "study", "status", *map(str, words)],
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stderr
    assert "  toy: train first, seed 0: there, " in told.stdout
    assert told.stdout.strip().endswith("toy, small: all is there")
    more = diascope("study", "status", file, "--store", tmp_path / "s").stdout
    assert "toy: train second, seed 0: to do" in more
    assert "2 jobs left, about" in more

    partly = diascope("study", "report", file, "--store", tmp_path / "s")
    assert partly.returncode == 0
    results = json.loads((tmp_path / "s/reports/toy-small/results.json").read_text())
    assert not results["complete"]
    assert [c["verdict"] for c in results["claims"]] == ["supported"]


def test_several_files_have_a_folder_each_and_a_failure_ends_with_one(tmp_path, diascope):
    good = written(tmp_path, runs={"second": None})
    alone = {"measure": "agreement", "on": "held-out"}
    bad = written(tmp_path, "bad.yaml", runs={"second": None}, evaluations={"alone": alone})
    done = diascope(
        "study", "run", good, bad, "--store", tmp_path / "s", "--out", tmp_path / "out",
    )  # fmt: skip
    assert done.returncode == 1
    assert "together, each once, small: 1 trainings to do" in done.stderr
    assert "bad: alone of first, seed 0: failed: agreement: there is no model" in done.stderr
    assert "1 jobs failed; why is in" in done.stderr
    for name in ("toy-small", "bad-small"):
        assert (tmp_path / "out" / name / "report.html").exists()
    told = diascope("study", "status", bad, "--store", tmp_path / "s").stdout
    assert "bad: alone of first, seed 0: failed: " in told
    assert "bad: clean of first, seed 0: there" in told


BAD = [
    (("run",), "no study file is given"),
    (("run", "gone.yaml"), "gone.yaml: there is no such file"),
    (("run", "_base.yaml"), "_base.yaml: is a base for studies"),
    (("run", "toy.yaml", "--scale", "smal"), "no scale 'smal': did you mean 'small'?"),
    (("run", "toy.yaml", "seed=[1]"), "unknown key 'seed': did you mean 'seeds'?"),
    (("run", "toy.yaml", "seeds=["), "the value is not YAML"),
    (("run", "toy.yaml", "--only", "thrid"), "--only thrid: no run, evaluation or claim"),
    (("run", "toy.yaml", "--engine", "rya"), "--engine: unknown engine 'rya': did you mean 'ray'?"),
    (("run", "toy.yaml", "engine.worker=2"), "unknown key 'worker': did you mean 'workers'?"),
    (("run", "toy.yaml", "--workers", "0"), "--engine: workers must be at least 1"),
    (("run", "toy.yaml", "--max-hours", "0"), "--max-hours 0.0: give a number of hours above 0"),
    (("run", "toy.yaml", "--data", "gone"), "--data gone: there is no such folder"),
    (("run", "toy.yaml", "--gpus", "one"), "--gpus one: give numbers with commas between"),
    (("run", "toy.yaml", "--store", "toy.yaml"), "--store toy.yaml: is a file; name a folder"),
    (("run", "toy.yaml", "every_run.data.name={data}/x"), "give the folder of all data, --data"),
    (("report", "toy.yaml", "--store", "sotre"), "--store sotre: no store is there; run the study"),
    (("status", "toy.yaml", "--store", "sotre"), "--store sotre: no store is there; run the study"),
    (("run", "toy.yaml", "runs.frist.training.epochs=1"), "no run 'frist': did you mean 'first'?"),
    (("run", "toy.yaml", "every_run.model.name=resnet81"), "no such model; did you mean 'resnet"),
    (("run", "toy.yaml", "every_run.data.name=phantm"), "train first, seed 0: "),
    (("run", "toy.yaml", "runs.first.model.weights=w.pt"), "w.pt: there is no such file"),
    (("status", "toy.yaml", "--scale", "paper"), "no scale 'paper'"),
]


@pytest.mark.parametrize(("words", "said"), BAD, ids=[" ".join(words) for words, _ in BAD])
def test_bad_input_is_one_line_and_exit_2(tmp_path, diascope, words, said):
    written(tmp_path)
    written(tmp_path, "_base.yaml")
    done = diascope("study", *words, cwd=tmp_path)
    assert done.returncode == 2
    if words != ("run",):
        assert done.stderr.startswith("error: ")
        assert said in done.stderr
        assert len(done.stderr.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"toy.yaml", "_base.yaml"}


def test_a_study_that_differs_from_its_file_has_a_report_of_its_own(tmp_path, diascope):
    file = written(tmp_path, runs={"second": None})
    for words in ((), ("every_run.training.epochs=1",)):
        done = diascope("study", "run", file, *words, "--store", tmp_path / "s")
        assert done.returncode == 0, done.stderr
    folders = sorted((tmp_path / "s" / "reports").iterdir())
    assert [folder.name[:10] for folder in folders] == ["toy-small", "toy-small-"]
    found = [json.loads((folder / "results.json").read_text()) for folder in folders]
    epochs = [each["study"]["every_run"]["training.epochs"] for each in found]
    assert epochs == [2, 1]


def test_the_printed_command_has_the_data_and_runs(tmp_path, diascope):
    drawn = diascope("data", "phantom", "--out", tmp_path / "d" / "x", "--images", 40, "--size", 16)
    assert drawn.returncode == 0, drawn.stderr
    file = written(tmp_path, runs={"second": None}, every_run={"data.name": "{data}/x"})
    words = ("--store", tmp_path / "s", "--data", tmp_path / "d")
    done = diascope("study", "run", file, *words)
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "s/reports/toy-small/results.json").read_text())
    printed = results["regenerate"].replace("--data DATA", f"--data {tmp_path / 'd'}")
    assert printed != results["regenerate"]
    for verb in ("run", "report"):
        again = diascope(*shlex.split(printed.replace("study run", f"study {verb}"))[1:])
        assert again.returncode == 0, again.stderr
    assert "0 trainings to do, 1 there" in diascope(*shlex.split(printed)[1:]).stderr
    unchecked = diascope("study", "report", file, "--store", tmp_path / "s")
    assert unchecked.returncode == 0
    assert "whether images are still those of finished jobs is unknown: " in unchecked.stderr


def test_a_dry_run_says_what_would_fail_and_why_a_cost_is_not_known(tmp_path, diascope):
    file = written(tmp_path, every_run={"data.name": "{data}/x"})
    done = diascope("study", "run", file, "--store", tmp_path / "s", "--dry-run")
    assert done.returncode == 0
    assert "would fail: toy: train first, seed 0: '{data}/x': give the folder" in done.stderr
    assert "4 jobs: cost not known: '{data}/x': give the folder of all data" in done.stderr


def test_a_plan_tells_which_claims_its_images_cannot_decide(tmp_path, diascope):
    near = {"name": "equal", "a": "first/clean.correct", "b": "second/clean.correct"}
    claims = {"near": {"says": "equal", "test": {**near, "within": 0.01}}}
    file = written(tmp_path, claims=claims, tests={"held-out": {"images": 9}})
    done = diascope("study", "run", file, "--store", tmp_path / "s", "--dry-run")
    assert "toy, small: claim near: a difference of less than 0.01 cannot be shown" in done.stderr


def test_time_that_is_over_has_an_exit_code_of_its_own(tmp_path, diascope):
    file = written(tmp_path)
    done = diascope("study", "run", file, "--store", tmp_path / "s", "--max-hours", 1e-9)
    assert done.returncode == 3
    said = done.stderr.strip().splitlines()[-1]
    assert said == "--max-hours 1e-09: 4 jobs are left; the same command goes on with them"


@pytest.mark.parametrize(("way", "code"), [("interrupt", 130), ("terminate", 143)])
def test_ctrl_c_and_sigterm_keep_everything_and_say_so(tmp_path, way, code):
    long = {"epochs": 500, "checkpoint_seconds": 0}
    file = written(tmp_path, runs={"second": {"training": long}})
    store = tmp_path / "s"
    forked = Forked("study", "run", file, "--store", store, folder=tmp_path)
    try:
        forked.wait_for(lambda: "[2/4] toy: clean of first" in forked.said())
        forked.wait_for(lambda: list(store.glob("runs/*/state.pt")))
        getattr(forked, way)()
        assert forked.end() == code
    finally:
        forked.kill()
    said = forked.said()
    assert said.strip().endswith("all that was done is kept, the same command goes on")
    assert "Traceback" not in said
    results = json.loads((store / "reports" / "toy-small" / "results.json").read_text())
    assert [job["state"] for job in results["jobs"]] == ["done", "done", "left", "left"]
    assert list(store.glob("runs/*/state.pt"))
