"""The command line in a process of its own: a fork of the tests', which has torch already."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

FORK = multiprocessing.get_context("fork")
ENOUGH = 120.0


class Forked:
    """`diascope WORDS...` as the leader of a process group, in which every warning is an error."""

    def __init__(
        self,
        *words: object,
        folder: Path,
        cwd: Path | None = None,
        deaf: bool = False,
        **environment: object,
    ) -> None:
        """Begin in `cwd`, else in `folder`, where files take what it prints.

        deaf: to Ctrl-C, as what a shell starts with `&`.
        """
        self._sigint = signal.SIG_IGN if deaf else signal.default_int_handler
        self.out, self.err, self.cwd = folder / "stdout.txt", folder / "stderr.txt", cwd or folder
        given = {name: str(value) for name, value in environment.items()}
        self._process = FORK.Process(target=self._run, args=(list(map(str, words)), given))
        with warnings.catch_warnings():  # of Python 3.12 on: this process has threads
            warnings.simplefilter("ignore", DeprecationWarning)
            self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def _run(self, words: list[str], environment: dict[str, str]) -> None:
        os.setsid()
        os.chdir(self.cwd)
        for file, stream in ((self.out, 1), (self.err, 2)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), stream)
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
        sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
        signal.signal(signal.SIGINT, self._sigint)
        warnings.simplefilter("error")
        os.environ.update(environment)
        tempfile.tempdir = None  # it is looked up again
        sys.argv = ["diascope", *words]
        from diascope.cli.main import main

        main()

    def wait_for(self, test: Callable[[], object]) -> None:
        """Wait until the test is true; fail where the process ends before."""
        end = time.monotonic() + ENOUGH
        while not test():
            assert self._process.is_alive() or test(), self.said()
            assert time.monotonic() < end, "nothing came of it"
            time.sleep(0.02)

    def said(self) -> str:
        """What it has written on stderr until now."""
        return self.err.read_text() if self.err.exists() else ""

    def interrupt(self) -> None:
        os.kill(self.pid, signal.SIGINT)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)

    def end(self) -> int:
        """Wait until it has ended; its exit code."""
        self._process.join(ENOUGH)
        assert self._process.exitcode is not None, "it does not end"
        return self._process.exitcode

    def kill(self) -> None:
        """Kill it and what it began, if it still runs."""
        if self._process.is_alive():
            os.killpg(self.pid, signal.SIGKILL)
            self._process.join(ENOUGH)
