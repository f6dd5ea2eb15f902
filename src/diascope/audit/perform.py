"""Do the steps of a plan: read back what is there, do the rest, and let no failure spread."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch

from diascope.audit.bench import Bench
from diascope.audit.parts import StageReport
from diascope.audit.plan import Plan, Step
from diascope.audit.stages import Measured
from diascope.audit.stored import Shelf, key_of
from diascope.errors import UserError
from diascope.files import write_text

Tell = Callable[[str, str, float, float], None]  # (model, stage, passes made, passes foreseen)
Say = Callable[[str], None]
FIRST = "predictions"  # without which nothing else can be


@dataclass
class Done:
    """What has been measured: results and tables by model, and what became of each stage."""

    results: dict[str, dict[str, Any]] = field(default_factory=dict)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    reports: list[StageReport] = field(default_factory=list)
    complete: bool = True

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
    where not even the predictions can be had, `KeyboardInterrupt` before any were.
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
        tell(model, step.name, step.passes, step.passes)
        return StageReport(model, step.name, "done", "", measured.images, seconds)
    bench.scratch = shelf.scratch(model, step.name, key)
    began = time.perf_counter()
    try:
        measured = _measured(step, tell, say)
    except Exception as error:  # whatever a model, or a stage, raises
        if step.name == FIRST:
            raise UserError(f"{model}: gives no predictions: {_reason(error)}") from error
        return _failed(step, shelf, error, time.perf_counter() - began, say)
    seconds = time.perf_counter() - began
    done.keep(bench, step.name, measured)
    shelf.save(model, step.name, key, measured, seconds)
    return StageReport(model, step.name, "done", "", measured.images, seconds)


def _measured(step: Step, tell: Tell, say: Say) -> Measured:
    """Run the stage; where memory runs out, again in batches of half the size."""
    bench = step.bench
    while True:
        made = 0.0

        def counted(passes: float) -> None:
            nonlocal made
            made += passes
            tell(bench.subject.name, step.name, min(made, step.passes), step.passes)

        bench.tell = counted
        try:
            measured = step.stage.measure(bench)
            if made < step.passes:
                tell(bench.subject.name, step.name, step.passes, step.passes)
            return measured
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or bench.batch_size == 1:
                raise
        bench.batch_size = max(1, bench.batch_size // 2)
        if bench.device.type == "cuda":
            torch.cuda.empty_cache()
        say(
            f"{bench.subject.name}: {step.name}: out of memory; on with batches of "
            f"{bench.batch_size}"
        )


def out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory ran out, on the host or on a device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def _failed(step: Step, shelf: Shelf, error: Exception, seconds: float, say: Say) -> StageReport:
    model, reason = step.bench.subject.name, _reason(error)
    if not isinstance(error, UserError):
        trace = shelf.place(model, step.name).with_suffix(".error.txt")
        write_text(trace, "".join(traceback.format_exception(error)))
    say(f"{model}: {step.name} failed: {reason}; the audit goes on")
    return StageReport(model, step.name, "failed", reason, 0, seconds)


def _reason(error: Exception) -> str:
    told = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    return " ".join(told.split())[:300]


def per_image(done: Done, name: str) -> pd.DataFrame:
    """Return the table of a model; where it was not attacked, its minimal epsilons are NaN."""
    table = done.tables[name]
    return table if "minimal_epsilon" in table else table.assign(minimal_epsilon=np.nan)
