"""`diascope view`: what it refuses before anything is served."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--eps", "a"], "--eps a"),
        (["--eps", "-1"], "epsilons"),
        (["--norm", "l7"], "norm"),
        (["--host", "0.0.0.0"], "--i-know-this-is-reachable"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(diascope, words, told):
    done = diascope("view", "x", *words, "--no-open")
    assert done.returncode == 2
    assert told in done.stderr
    assert len(done.stderr.splitlines()) == 1
