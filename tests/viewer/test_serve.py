"""The verb's own mistakes: hosts, ports, folders, models."""

from __future__ import annotations

import socket
import subprocess
import sys

import pytest

from diascope.errors import UserError
from diascope.viewer.guard import is_loopback
from diascope.viewer.serve import serve
from diascope.viewer.settings import ViewSettings


@pytest.mark.parametrize("host", ["0.0.0.0", "10.1.2.3", "example.org", "::"])
def test_a_host_that_others_reach_needs_a_flag(host):
    with pytest.raises(UserError, match="--i-know-this-is-reachable"):
        serve(["x"], ViewSettings(), host=host)


def test_which_hosts_are_this_machine_alone():
    assert all(map(is_loopback, ["127.0.0.1", "127.8.8.8", "localhost", "::1", "[::1]"]))
    assert not any(map(is_loopback, ["0.0.0.0", "::", "", "localhost.example.org", "192.168.0.1"]))


def test_a_port_that_is_taken_is_said():
    with (
        socket.create_server(("127.0.0.1", 0)) as other,
        pytest.raises(UserError, match="cannot be listened at"),
    ):
        serve(["x"], ViewSettings(), port=other.getsockname()[1])


def test_a_report_that_is_not_there_is_said(tmp_path):
    with pytest.raises(UserError, match=r"holds no report\.html"):
        serve(["x"], ViewSettings(), report=tmp_path)


def test_models_that_do_not_open_end_the_server_with_their_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("diascope.viewer.serve.LINGER", 0.1)
    said = []
    with pytest.raises(UserError, match="there is no such file"):
        serve([str(tmp_path / "none.safetensors")], ViewSettings(), say=said.append)
    assert said[0].startswith("open http://127.0.0.1:")


def test_help_imports_nothing_of_the_server():
    code = (
        "import sys, diascope.cli.main\n"
        "print([m for m in ('fastapi', 'starlette', 'uvicorn', 'torch') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
