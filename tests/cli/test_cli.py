"""The command line as its users meet it: real processes, exit codes, one line for a mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap

import pandas as pd
import pytest

TINY = """
data:
  name: phantom:images=60,size=32,hospital=both
  size: 32
  split: {fractions: [0.5, 0.2, 0.3]}
model: {name: resnet18, options: {layers: [1, 1, 1, 1], channels: [8, 8, 8, 8]}}
objective: {name: adversarial, attack: {name: fgsm, norm: l2, eps: 0.1}}
training: {epochs: 1, batch_size: 16}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory, process):
    folder = tmp_path_factory.mktemp("run")
    (folder / "tiny.yaml").write_text(TINY)
    os.environ["DIASCOPE_CACHE"] = str(folder / "cache")
    done = process("train", "tiny.yaml", "training.seed=3", "--out", "m", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder / "m"


def test_help_and_version_do_not_import_torch(process):
    code = "import sys, diascope.cli.main; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    shown = process("--help").stdout
    assert all(verb in shown for verb in ("demo", "train", "audit", "data"))
    assert process("--version").stdout.startswith("diascope 0.")


def test_train_then_audit(run, fork, diascope):
    assert {"config.yaml", "split.csv", "metrics.csv", "model.safetensors"} <= {
        path.name for path in run.iterdir()
    }
    data = "phantom:images=60,size=32,hospital=both"
    out = run.parent / "audit"
    words = (
        "audit",
        run,
        "--data",
        data,
        "--out",
        out,
        "--steps",
        2,
        "--eps",
        "0.1,1",
        "--cases",
        3,
        "--budget",
        "quick",
    )
    done = fork(*words, cwd=run.parent)
    assert done.returncode == 0, done.stderr
    results = json.loads((out / "results.json").read_text())
    split = pd.read_csv(run / "split.csv", keep_default_na=False)
    assert results["data"]["images"] == (split.split == "test").sum()
    assert ((split.content == "") == (split.split == "test")).all()  # known again by its content
    assert results["epsilons"] == [0.0, 0.1, 1.0]
    assert "diascope audit" in results["command"]
    page = (out / "report.html").read_text()
    assert "<html" in page
    assert (out / "tables" / "m.parquet").exists()
    failed = diascope(*words, "--fail-on", "info")
    assert failed.returncode == (1 if results["findings"] else 0)


def test_a_finished_run_is_not_trained_over(run, diascope):
    again = diascope("train", run.parent / "tiny.yaml", "training.seed=3", "--out", run)
    assert again.returncode == 2
    assert len(again.stderr.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("train", "none.yaml"), "none.yaml: there is no such file"),
        (("train", "tiny.yaml", "training.epohcs=3"), "did you mean 'epochs'"),
        (("train", "tiny.yaml", "objective.attack.name=fgms"), "did you mean 'fgsm'"),
        (("train", "tiny.yaml", "data.name=phantm"), "did you mean 'phantom'"),
        (("train", "tiny.yaml", "model.name=resnet81"), "did you mean 'resnet"),
        (("audit", "nowhere", "--data", "phantom"), "no such file"),
        (("audit", "m", "--data", "phantm"), "did you mean 'phantom'"),
        (("audit", "m", "--data", "phantom", "--eps", "a,b"), "give numbers"),
        (("audit", "m", "--data", "phantom", "--eps=-1"), "epsilons"),
        (("audit", "m", "--data", "phantom", "--norm", "l3"), "norm"),
        (("audit", "m", "--data", "phantom", "--explainer", "gradint"), "did you mean 'gradient'"),
        (("audit", "m", "--data", "phantom", "--fail-on", "hgih"), "did you mean 'high'"),
        (("data", "verify", "nowhere/at/all"), "not found"),
        (("data", "split", "ham10000:/nowhere"), "/nowhere"),
        (("data", "phantom", "--out", "p", "--size", "4"), "size=4"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(run, diascope, words, message):
    done = diascope(*words, cwd=run.parent)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr


def test_a_mistake_ends_the_process_without_a_traceback(run, process):
    done = process("train", "tiny.yaml", "training.epohcs=3", cwd=run.parent)
    assert done.returncode == 2
    assert "did you mean 'epochs'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_data_verbs(tmp_path, diascope):
    assert "ham10000" in diascope("data", "list").stdout
    done = diascope("data", "phantom", "--out", tmp_path / "p", "--images", 20, "--size", 32)
    assert done.returncode == 0, done.stderr
    table = tmp_path / "p" / "table.csv"
    assert diascope("data", "verify", table).returncode == 0
    image = next((tmp_path / "p").rglob("*.png"))
    image.write_bytes(image.read_bytes()[:40])
    found = diascope("data", "verify", table)
    assert found.returncode == 1
    assert image.name in found.stdout
    written = diascope("data", "split", table, "--out", tmp_path / "s.csv")
    assert written.returncode == 0
    assert len((tmp_path / "s.csv").read_text().splitlines()) == 21


def test_unreadable_images_stop_training_unless_told(tmp_path, diascope):
    diascope("data", "phantom", "--out", tmp_path / "p", "--images", 40, "--size", 32)
    for image in sorted((tmp_path / "p" / "images").rglob("*.png"))[:2]:
        image.write_bytes(b"no image")
    config = tmp_path / "c.yaml"
    config.write_text(
        textwrap.dedent(TINY).replace("phantom:images=60,size=32,hospital=both", "p/table.csv")
    )
    stopped = diascope("train", config, "--out", "r", cwd=tmp_path)
    assert stopped.returncode == 2
    assert re.search(r"\b[12] of \d+ images cannot be used", stopped.stderr)
    assert len(stopped.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "r" / "model.safetensors").exists()
    told = diascope("train", config, "data.skip_unreadable=true", "--out", "r", cwd=tmp_path)
    assert told.returncode == 0, told.stderr
    assert re.search(r"\b[12] unusable images are left out", told.stderr)
