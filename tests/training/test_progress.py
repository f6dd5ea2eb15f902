from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from diascope.training import console_progress
from diascope.training.progress import Bar, Lines, epoch_line

ROW = {
    "epoch": 2,
    "train_loss": 0.5,
    "val_loss": 0.61,
    "val_accuracy": 0.75,
    "val_adversarial_accuracy": math.nan,
    "images_per_second": 312.4,
    "seconds": 4.25,
}


def test_a_terminal_gets_a_bar_that_leaves_one_line_an_epoch() -> None:
    out = io.StringIO()
    with console_progress(Console(file=out, force_terminal=True, width=100)) as progress:
        assert isinstance(progress, Bar)
        for done in range(10):
            progress.step(done, 10, "epoch 2/9", 300.0, 75.0)
        progress._bars.refresh()
        assert "300 images/s, 75 s left" in out.getvalue()
        progress.epoch(ROW, 9, True, 60.0)
    assert "epoch 2/9, loss 0.500, val loss 0.610, accuracy 0.750" in out.getvalue()
    assert "\x1b[2K" in out.getvalue().splitlines()[-1], "the bar is left standing"


def test_a_pipe_gets_plain_lines_and_not_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 0.0
    monkeypatch.setattr("time.monotonic", lambda: clock)
    out = io.StringIO()
    with console_progress(Console(file=out, width=40)) as progress:
        assert isinstance(progress, Lines)
        assert not isinstance(progress, Bar)
        for done in range(100):
            clock += 1.0
            progress.step(done, 100, "epoch 1/9", 12.3, 3600.0)
        progress.epoch({**ROW, "val_adversarial_accuracy": 0.5}, 9, False, 0.0)
    lines = out.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "epoch 1/9, step 30/100, 12 images/s, 60 min left"
    assert lines[-1].endswith("accuracy 0.750, under attack 0.500, 312 images/s, 4.2 s")
    assert "\x1b" not in out.getvalue()


def test_what_is_unknown_is_left_out() -> None:
    assert "under attack" not in epoch_line(ROW, 9, False, 0.0)
    assert epoch_line(ROW, 9, True, math.nan).endswith("4.2 s (best)")
    assert epoch_line(ROW, 9, True, 20000.0).endswith("4.2 s, 5.6 h left (best)")
