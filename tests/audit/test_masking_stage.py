"""The stage and the check of masked gradients: what is foreseen, and what is said."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import masking
from benchmarks.masked_nets import PLACES, pictures
from tests.audit.benches import bench_of, pixels_of, results_of, told
from torch import nn

from diascope.audit.checks import CHECKS
from diascope.audit.checks.masking import believed
from diascope.audit.masking import MASKING
from diascope.audit.parts import MaskingOutcome
from diascope.audit.stages import STAGES


class Places(nn.Module):
    """Logits (B, 3) from the brightness of each place: robust, and right without training."""

    def __init__(self, sharpness: float = 20.0) -> None:
        super().__init__()
        weight = torch.zeros(3, 3, 16, 16)
        for kind, (top, left) in enumerate(PLACES[:3]):
            weight[kind, :, top : top + 5, left : left + 5] = sharpness / 75
        self.weight = nn.Parameter(weight)

    def forward(self, x):
        return torch.einsum("bchw,kchw->bk", x, self.weight)


def bench(net: nn.Module, count: int = 24, **settings):
    x, y = pictures(count, 3)
    levels = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    pixels = pixels_of(np.ascontiguousarray(levels), y.numpy(), ["a", "b", "c"])
    effort = {"masking_images": 20, "masking_steps": 4, "masking_queries": 10}
    return bench_of(net, pixels, effort=effort, **{"epsilons": (0.001, 0.002, 0.004), **settings})


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_plan_holds_and_is_near_where_nothing_breaks(norm):
    made, counted = bench(Places(), norm=norm), []
    foreseen = STAGES["masking"].passes(made)
    measured = told(made, STAGES["masking"])
    made.tell = counted.append
    again = STAGES["masking"].measure(made)
    assert foreseen / 3 < sum(counted) <= foreseen
    assert measured.images == 20
    assert [o.number for o in measured.result] == list(range(1, 15))
    assert [o.verdict for o in again.result] == [o.verdict for o in measured.result]


def test_it_is_left_out_without_gradients_and_kept_by_its_own_effort():
    stage = STAGES["masking"]
    assert stage.needs == ("gradients",)
    assert set(stage.effort) == {"masking_images", "masking_steps", "masking_queries"}


def test_verdicts_do_not_depend_on_the_size_of_the_batch():
    outcomes = []
    for size in (7, 64):
        made = bench(Places(), epsilons=(0.02, 0.06))
        made.batch_size = size
        outcomes.append({o.name: o.verdict for o in STAGES["masking"].measure(made).result})
    assert outcomes[0] == outcomes[1]


def outcome(verdict="passed", severity="high", number=7) -> MaskingOutcome:
    return MaskingOutcome(number, f"n{number}", "Is it so?", verdict, "e", "m", "r", severity)


def findings_of(*outcomes):
    return CHECKS["masking"](results_of(bench(Places()), masking=list(outcomes)))


def test_a_failed_check_is_a_finding_of_its_severity():
    failed, summary = findings_of(outcome("failed"), *[outcome(number=n) for n in range(1, 6)])
    assert failed.severity == "high"
    assert "check 7 of 14" in failed.title
    assert (failed.evidence, failed.meaning, failed.remedy) == ("e", "m", "r")
    assert summary.severity == "info"
    assert "cannot be believed" in summary.title
    assert "1 failed (n7)" in summary.evidence


def test_where_nothing_failed_one_sentence_says_so():
    (summary,) = findings_of(*[outcome(number=n) for n in range(1, 15)])
    assert "no sign of masked gradients" in summary.title
    assert "14 passed" in summary.evidence


def test_what_is_undecided_is_not_passed():
    undecided = [outcome("undecided", number=n) for n in range(1, 9)]
    (summary,) = findings_of(*undecided, *[outcome(number=n) for n in range(9, 15)])
    assert "not decided" in summary.title
    assert "8 could not be decided" in summary.evidence
    assert believed([outcome("failed", "low"), outcome(), outcome()]) is True


def test_silent_where_it_was_not_measured():
    assert findings_of() == []


def test_a_model_that_returns_one_class_gives_no_verdict_on_attacks():
    made = bench(Places())
    constant = nn.Sequential(nn.Flatten(), nn.Linear(768, 3))
    nn.init.zeros_(constant[1].weight)
    constant[1].bias.data = torch.tensor([1.0, 0, 0])
    made = replace(made, model=constant.eval())
    word = {o.name: o.verdict for o in STAGES["masking"].measure(made).result}
    assert word["iterative"] == "undecided"  # seven of 20 images are right, one too few
    assert "passed" not in {word[n] for n in MASKING if n not in ("stochastic", "logits")}


def test_the_benchmark_writes_a_record_a_net_and_counts(tmp_path, capsys):
    masking.main(["--quick", "--results", str(tmp_path)])
    lines = [json.loads(line) for line in (tmp_path / "masking.jsonl").read_text().splitlines()]
    assert [(r["kind"], r["name"]) for r in lines] == [
        ("honest", "linear"),
        ("planted", "rounds its pixels"),
    ]
    assert lines[1]["outcomes"]["gradients"][0] == "failed"
    assert lines[1]["numbers"]["gradients"]["zero_margin"] == 1
    printed = capsys.readouterr().out
    assert re.search(r" 7 gradients +0 of 1 +0 +1 of 1\n", printed)


def test_the_snippet_of_the_page_runs(capsys):
    text = (Path(__file__).parents[2] / "docs" / "masking.md").read_text()
    (snippet,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    x, y = pictures(12, 3)
    exec(snippet, {"model": Places(), "x": x, "y": y, "ids": torch.arange(12)})
    told_lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in told_lines] == [str(n) for n in range(1, 15)]


def test_the_page_names_every_check():
    page = (Path(__file__).parents[2] / "docs" / "masking.md").read_text()
    rows = re.findall(r"^\| (\d+) (\w+) \|", page, re.MULTILINE)
    made = bench(Places(), count=3)
    outcomes = STAGES["masking"].measure(made).result
    expected = [(str(o.number), o.name) for o in outcomes]
    assert rows == 2 * expected  # what each asks, and what was measured of it
