"""The command line as tests call it: within this process, or as one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.forked import Forked

from diascope.cli.main import main


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


@pytest.fixture
def diascope(capsys, monkeypatch):
    """The command line within this process, which saves the import of torch each time."""

    def call(*words: object, cwd: Path | None = None) -> Done:
        if cwd is not None:
            monkeypatch.chdir(cwd)
        monkeypatch.setattr(sys, "argv", ["diascope", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            main()
        return Done(int(stopped.value.code or 0), *capsys.readouterr())

    return call


@pytest.fixture
def fork(tmp_path_factory):
    """The command line in a fork of this process, which has torch already."""

    def call(*words: object, cwd: Path) -> Done:
        folder = tmp_path_factory.mktemp("printed")
        forked = Forked(*words, folder=folder, cwd=cwd, COLUMNS=200)
        return Done(forked.end(), forked.out.read_text(), forked.err.read_text())

    return call


@pytest.fixture(scope="session")
def process():
    """The command line in a process of its own, in which every warning is an error."""

    def call(*words: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error", "-m", "diascope", *map(str, words)],
            capture_output=True,
            text=True,
            cwd=cwd,
            env={**os.environ, "COLUMNS": "200", "OMP_NUM_THREADS": "1"},
        )

    return call
