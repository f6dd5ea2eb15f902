"""Do the steps of a plan: read back what is there, do the rest, and let no failure spread."""

from __future__ import annotations

import errno
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch

from diascope.audit.bench import Bench
from diascope.audit.parts import StageReport
from diascope.audit.plan import Plan, Step
from diascope.audit.stages import Measured
from diascope.audit.stored import Shelf, key_of
from diascope.errors import UserError, gathered
from diascope.explain.chunks import at_most
from diascope.files import write_text
from diascope.hardware import out_of_memory

Tell = Callable[[str, str, float, float], None]  # (model, stage, passes made, passes expected)
Say = Callable[[str], None]
T = TypeVar("T")
FIRST = "predictions"  # without which nothing else can be
FULL = (errno.ENOSPC, errno.EDQUOT)
TO_COME = 0.1  # of the expected passes are always to come, until a stage has ended
ANY = (Exception, SystemExit)  # a model may call exit(); an interrupt is the user's


@dataclass
class Done:
    """What has been measured: results and tables by model, and what became of each stage.

    read_back: how many images each black box was asked about by the audit whose stages these are.
    """

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    reports: list[StageReport] = field(default_factory=list)
    complete: bool = True
    read_back: dict[str, int] = field(default_factory=dict)

    def keep(self, bench: Bench, stage: str, measured: Measured) -> None:
        """Add a result and its columns to what is known of a model."""
        name = bench.subject.name
        self.results.setdefault(name, {})[stage] = measured.result
        table = self.tables.get(name, pd.DataFrame())
        fresh = pd.DataFrame({c: np.asarray(v) for c, v in measured.columns.items()})
        kept = table[[column for column in table if column not in fresh]]
        self.tables[name] = bench.table = pd.concat([kept, fresh], axis=1)


def perform(
    plan: Plan,
    shelf: Shelf,
    *,
    tell: Tell = lambda model, stage, made, foreseen: None,
    say: Say = lambda line: None,
) -> Done:
    """Do every step of the plan and return what came of it.

    What was measured before under the same key is read back. A stage that fails is reported and
    the rest goes on; where memory runs out, it is run again in smaller batches. An interrupt
    ends the work: what is done is kept, what is not is reported as unfinished. Raises `UserError`
    where not even the predictions can be had, `KeyboardInterrupt` before any were, `OSError` where
    what was measured cannot be written.
    """
    done = Done()
    for place, step in enumerate(plan.steps):
        bench, model = step.bench, step.bench.subject.name
        if step.reason:
            done.reports.append(StageReport(model, step.name, "left out", step.reason))
            continue
        try:
            done.reports.append(_step(step, shelf, done, tell, say))
        except KeyboardInterrupt:
            if any(name not in done.tables for name in {s.bench.subject.name for s in plan.steps}):
                raise
            done.complete = False
            done.reports += [
                StageReport(s.bench.subject.name, s.name, "left out", s.reason)
                if s.reason
                else StageReport(s.bench.subject.name, s.name, "unfinished", "interrupted")
                for s in plan.steps[place:]
            ]
            return done
        finally:
            bench.tell = lambda passes: None
    return done


def _step(step: Step, shelf: Shelf, done: Done, tell: Tell, say: Say) -> StageReport:
    bench, model = step.bench, step.bench.subject.name
    key = key_of(bench, step.name, step.stage)
    found = shelf.load(model, step.name, step.stage, key)
    if found is not None:
        measured, seconds = found
        done.keep(bench, step.name, measured)
        tell(model, step.name, step.expected, step.expected)
        done.read_back[model] = done.read_back.get(model, 0) + measured.queries
        return _report(step, measured, seconds)
    bench.scratch = shelf.scratch(model, step.name, key)
    began, asked = time.perf_counter(), bench.subject.queries
    try:
        measured = _measured(step, tell, say)
    except ANY as error:  # whatever a model, or a stage, raises
        if step.name == FIRST and not is_full(error):
            raise UserError(f"{model}: gives no predictions: {_reason(error)}") from error
        return failed(model, step.name, shelf, error, time.perf_counter() - began, say)
    seconds = time.perf_counter() - began
    measured = replace(measured, queries=bench.subject.queries - asked)
    done.keep(bench, step.name, measured)
    shelf.save(model, step.name, key, measured, seconds)
    return _report(step, measured, seconds)


def _report(step: Step, measured: Measured, seconds: float) -> StageReport:
    name, queries = step.bench.subject.name, measured.queries
    return StageReport(name, step.name, "done", "", measured.images, seconds, queries)


def _measured(step: Step, tell: Tell, say: Say) -> Measured:
    """Run the stage once, or as often as memory runs out."""
    bench, model = step.bench, step.bench.subject.name

    def once() -> Measured:
        made, foreseen, settled = 0.0, step.expected, step.stage.settled
        most, weight = (step.expected, step.share) if settled else (step.passes, 1.0)

        def counted(passes: float) -> None:
            nonlocal made, foreseen
            made = min(made + weight * passes, most)
            foreseen = max(foreseen, made + TO_COME * min(step.expected, most - made))
            tell(model, step.name, made, foreseen)

        bench.tell = counted
        tell(model, step.name, 0.0, foreseen)
        measured = step.stage.measure(bench)
        if made < foreseen:
            end = max(made, step.expected)
            tell(model, step.name, end, end)
        return measured

    return in_memory(once, [bench], f"{model}: {step.name}", say)


def in_memory(work: Callable[[], T], benches: Sequence[Bench], what: str, say: Say) -> T:
    """Return what `work` does; where memory runs out, anew in batches of half the size.

    What counts its images by bytes is held to the smaller batches too. Of what was doubtful,
    `say` hears.
    """
    held = min(bench.batch_size for bench in benches)
    short = None if held == benches[0].settings.batch_size else held
    while True:
        try:
            with gathered() as doubts, at_most(short):
                found = work()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or short == 1:
                raise
        else:
            for doubt in doubts:
                say(f"{what}: {doubt}")
            return found
        for bench in benches:
            bench.batch_size = max(1, bench.batch_size // 2)
        short = min(bench.batch_size for bench in benches)
        if benches[0].device.type == "cuda":
            torch.cuda.empty_cache()
        say(f"{what}: out of memory; on with batches of {short}")


def failed(
    model: str, stage: str, shelf: Shelf, error: BaseException, seconds: float, say: Say
) -> StageReport:
    """Say that a stage failed, and keep the whole error beside the stages.

    Raises the error where the disk is full: the other stages could not be kept either.
    """
    if is_full(error):
        raise error
    reason = _reason(error)
    if not isinstance(error, UserError):
        trace = shelf.place(model, stage).with_suffix(".error.txt")
        write_text(trace, "".join(traceback.format_exception(error)))
    say(f"{model}: {stage} failed: {reason}; the audit goes on")
    return StageReport(model, stage, "failed", reason, 0, seconds)


def is_full(error: BaseException) -> bool:
    """Tell whether an error says that a disk has no room left."""
    return isinstance(error, OSError) and error.errno in FULL


def _reason(error: BaseException) -> str:
    told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(told.split())[:300]


def per_image(done: Done, name: str) -> pd.DataFrame:
    """Return the table of a model; where it was not attacked, its minimal epsilons are NaN."""
    table = done.tables[name]
    return table if "minimal_epsilon" in table else table.assign(minimal_epsilon=np.nan)
