"""What an audit is going to do, and how long it is expected to take."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from diascope.audit.bench import Bench
from diascope.audit.cases import passes_of_cases
from diascope.audit.stages import Stage, in_order
from diascope.hardware import out_of_memory
from diascope.models.frozen import frozen
from diascope.models.modes import exactly

TRIED = 16  # images with which a pass is timed


@dataclass(frozen=True)
class Step:
    """One stage of one model, with its expected cost; `reason` says why it is left out."""

    bench: Bench
    name: str
    stage: Stage
    passes: float  # at most
    seconds: float  # expected
    reason: str = ""

    @property
    def expected(self) -> float:
        """The passes that are usually made."""
        return self.passes * self.share

    @property
    def share(self) -> float:
        """The share of the passes that is usually made."""
        return self.stage.usual(self.bench)


@dataclass(frozen=True)
class Plan:
    """All the steps of an audit, stage by stage, and in each model by model.

    pictures: the seconds that the cases are expected to take, after the stages.
    """

    steps: list[Step]
    pictures: float = 0.0

    @property
    def seconds(self) -> float:
        """How long the steps and the cases are expected to take together."""
        return sum(step.seconds for step in self.steps) + self.pictures

    def lines(self) -> Iterator[str]:
        """Yield the plan in words, a line a stage."""
        for name in dict.fromkeys(step.name for step in self.steps):
            mine = [step for step in self.steps if step.name == name]
            doing = [step for step in mine if not step.reason]
            left = "; ".join(
                f"{step.bench.subject.name} left out, {step.reason}" for step in mine if step.reason
            )
            cost = f"about {duration(sum(s.seconds for s in doing))}" if doing else ""
            yield f"  {name}: {', '.join(part for part in (cost, left) if part)}"
        if self.pictures:
            yield f"  cases: about {duration(self.pictures)}"


def make_plan(benches: Sequence[Bench]) -> Plan:
    """Plan every stage for every model, after timing a pass of each."""
    speed = [seconds_a_pass(bench) for bench in benches]
    steps = []
    for name, stage in in_order():
        for bench, seconds in zip(benches, speed, strict=True):
            reason = lacking(bench, stage)
            passes = 0.0 if reason else float(stage.passes(bench))
            if not reason and not passes:
                reason = "nothing to measure"
            usual = passes * stage.usual(bench) if passes else 0.0
            steps.append(Step(bench, name, stage, passes, usual * seconds, reason))
    each = zip(benches, speed, strict=True)
    return Plan(steps, sum(passes_of_cases(bench) * seconds for bench, seconds in each))


def lacking(bench: Bench, stage: Stage) -> str:
    """Return why a stage cannot be run on a bench; empty where it can."""
    masks = bool(bench.pixels.has_mask.any())
    weights = any(True for _ in bench.model.parameters())
    reasons = {
        "gradients": (bench.subject.gradients, "the model gives no gradients"),
        "scores": (bench.subject.scores, "the model gives labels alone"),
        "weights": (weights, "the model's weights are not known"),
        "masks": (masks, "no image has a mask"),
        "validation": (bench.validation is not None, "no validation images are known"),
        "elsewhere": (bool(bench.elsewhere), "no data of another hospital was given"),
        "others": (bool(bench.others), "there is no other model to compare with"),
    }
    lacks = next((reasons[need][1] for need in stage.needs if not reasons[need][0]), "")
    return lacks or stage.lacks(bench)


@torch.no_grad()
def seconds_a_pass(bench: Bench) -> float:
    """Return the seconds that a forward pass of one image takes, the better of two goes."""
    rows = bench.drawn(min(TRIED, len(bench.pixels)))
    x = bench.pixels.x(rows, bench.device)
    while len(x):
        try:
            return _best(bench, x) / len(x)
        except (Exception, SystemExit) as error:  # whatever a model raises
            if not out_of_memory(error):
                break
        x = x[: len(x) // 2]
    return 0.0  # the predictions, which come first, will say why


def _best(bench: Bench, x: torch.Tensor) -> float:
    """Return the seconds that images (B, C, H, W) take, the better of some goes."""
    if not bench.subject.gradients:
        with exactly(bench.model) as inner:
            return min(_timed(inner, x) for _ in range(2))
    with frozen(bench.model, x) as net:
        return min(_timed(net, x) for _ in range(3))


def _timed(model: torch.nn.Module, x: torch.Tensor) -> float:
    began = time.perf_counter()
    model(x)
    if x.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def duration(seconds: float) -> str:
    """Return a length of time in words, to one unit."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"
