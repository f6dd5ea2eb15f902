"""An audit from end to end: plan, measure every model on the same images, summarise, check."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

import pandas as pd
import torch

from diascope.audit.assemble import assemble
from diascope.audit.bench import Bench
from diascope.audit.cases import cases, rows
from diascope.audit.datachecks.audited import audited_findings
from diascope.audit.images import Test
from diascope.audit.parts import StageReport
from diascope.audit.perform import ANY, Done, Say, Tell, failed, in_memory, per_image, perform
from diascope.audit.plan import Plan, duration, make_plan
from diascope.audit.results import Case, Finding, Results
from diascope.audit.settings import AuditSettings
from diascope.audit.stored import Shelf, identity
from diascope.audit.subject import Subject
from diascope.errors import UserError

T = TypeVar("T")
STAGES, TABLES, FRESH = "stages", "tables", ".tables"


def audit(
    subjects: Sequence[Subject],
    test: Test,
    settings: AuditSettings,
    out: Path,
    *,
    title: str = "",
    command: str = "",
    device: torch.device | None = None,
    progress: Tell | None = None,
    say: Say = lambda line: None,
) -> Results:
    """Audit models on the same images and write `results.json` and the tables into `out`.

    Every model is compared with the first. Stages that an earlier audit into `out` finished on
    the same models, images and settings are read back from `out/stages`. Interrupted, it returns
    what there is, with `complete` False; before the predictions of every model it raises
    `KeyboardInterrupt`. What an earlier audit left in `out` stays until there is something to put
    in its place. `say` hears the plan before anything is measured.
    """
    began = time.perf_counter()
    _make(out)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    benches = _benches(subjects, test, settings, device)
    for bench in benches:
        bench.identity = _identity(bench)
    plan = make_plan(benches)
    _announce(plan, test, settings, say)
    shelf = Shelf(out / STAGES)
    done = perform(plan, shelf, tell=progress or _nobody, say=say)
    close = _Closing(done, shelf, say)
    of_data = close("data", "data_checks", lambda: _of_data(subjects, test, settings))
    names = " and ".join(subject.name for subject in subjects)
    tell = progress or _nobody
    shown = close(names, "cases", lambda: _pictured(benches, done, test, settings, say, tell))
    shutil.rmtree(out / FRESH, ignore_errors=True)  # of an audit that was killed
    results = assemble(subjects, done, test, settings, out / FRESH, title, command, of_data)
    every = rows(_tables(benches, done), test.pixels, [s.name for s in subjects], shown)
    tables = {subject.name: f"{TABLES}/{subject.name}.parquet" for subject in subjects}
    results = replace(
        results, cases=shown, rows=every, tables=tables, seconds=time.perf_counter() - began
    )
    _publish(results, out)
    return results


def _benches(
    subjects: Sequence[Subject], test: Test, settings: AuditSettings, device: torch.device
) -> list[Bench]:
    models = {s.name: s.model.to(device) for s in subjects}
    for subject in subjects:
        if subject.gradients:
            models[subject.name].to(memory_format=torch.channels_last)
    return [
        Bench(
            subject=subject,
            model=models[subject.name],
            pixels=test.pixels,
            settings=settings,
            effort=settings.build_effort(),
            device=device,
            validation=test.validation.get(subject.name),
            elsewhere=test.elsewhere,
            others={name: model for name, model in models.items() if name != subject.name},
            cards={s.name: s.card for s in subjects if s.name != subject.name},
            batch_size=settings.batch_size,
        )
        for subject in subjects
    ]


def _identity(bench: Bench) -> str:
    try:
        return identity(bench)
    except ANY as error:  # of a black box that is asked
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{bench.subject.name}: gives no predictions: {reason}") from error


def _announce(plan: Plan, test: Test, settings: AuditSettings, say: Say) -> None:
    side, count = test.pixels.size, len(test.pixels)
    say(f"plan, budget {settings.budget}, {count} images of {side} x {side}:")
    for line in plan.lines():
        say(line)
    say(f"  in all about {duration(plan.seconds)}")


@dataclass(frozen=True)
class _Closing:
    """What comes behind the stages: it can be interrupted, and can fail, and nothing is lost."""

    done: Done
    shelf: Shelf
    say: Say

    def __call__(self, whose: str, name: str, work: Callable[[], list[T]]) -> list[T]:
        """Return what `work` does: nothing where the audit was, or is now, interrupted.

        Nor where it fails; both are reported in `done`.
        """
        if not self.done.complete:
            return []
        began = time.perf_counter()
        try:
            return work()
        except KeyboardInterrupt:
            self.done.complete = False
            self.done.reports.append(StageReport(whose, name, "unfinished", "interrupted"))
        except ANY as error:  # whatever a model raises
            spent = time.perf_counter() - began
            self.done.reports.append(failed(whose, name, self.shelf, error, spent, self.say))
        return []


def _of_data(subjects: Sequence[Subject], test: Test, settings: AuditSettings) -> list[Finding]:
    """Return what the checks of the data find."""
    if not settings.data_checks:
        return []
    return audited_findings(test.pixels, test.trained, subjects, test.left_out, settings.seed)


def _pictured(
    benches: Sequence[Bench],
    done: Done,
    test: Test,
    settings: AuditSettings,
    say: Say,
    tell: Tell,
) -> list[Case]:
    """Return the cases with pictures; where memory runs out, made in smaller batches."""
    models = {bench.subject.name: bench.model for bench in benches}
    tables, names = _tables(benches, done), " and ".join(models)

    def shown() -> list[Case]:
        seen = dict.fromkeys(models, 0)
        count = min(settings.shown_cases, len(test.pixels))

        def counted(model: str, images: int) -> None:
            seen[model] += images
            tell(model, "cases", seen[model], count)

        return cases(
            models,
            tables,
            test.pixels,
            settings,
            benches[0].device,
            subjects=[bench.subject for bench in benches],
            batch_size=min(bench.batch_size for bench in benches),
            tell=counted,
        )

    return in_memory(shown, benches, f"{names}: cases", say)


def _tables(benches: Sequence[Bench], done: Done) -> dict[str, pd.DataFrame]:
    return {bench.subject.name: per_image(done, bench.subject.name) for bench in benches}


def _make(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None


def _publish(results: Results, out: Path) -> None:
    """Put results and tables in the place of an earlier audit's, whose report is not of these."""
    results.save(out)
    shutil.rmtree(out / TABLES, ignore_errors=True)
    (out / FRESH).rename(out / TABLES)
    (out / "report.html").unlink(missing_ok=True)


def _nobody(model: str, stage: str, made: float, foreseen: float) -> None:
    pass
