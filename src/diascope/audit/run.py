"""An audit from end to end: plan, measure every model on the same images, summarise, check."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from diascope.audit.assemble import assemble
from diascope.audit.bench import Bench
from diascope.audit.cases import cases, rows
from diascope.audit.images import Test
from diascope.audit.perform import Done, Say, Tell, per_image, perform
from diascope.audit.plan import Plan, duration, make_plan
from diascope.audit.results import Case, Results
from diascope.audit.settings import AuditSettings
from diascope.audit.stored import Shelf, identity
from diascope.audit.subject import Subject
from diascope.errors import UserError

STAGES, TABLES = "stages", "tables"


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
    `KeyboardInterrupt`. `say` hears the plan before anything is measured.
    """
    began = time.perf_counter()
    _make_room(out)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    benches = _benches(subjects, test, settings, device)
    for bench in benches:
        bench.identity = _identity(bench)
    plan = make_plan(benches)
    _announce(plan, test, settings, say)
    done = perform(plan, Shelf(out / STAGES), tell=progress or _nobody, say=say)
    results = assemble(subjects, done, test, settings, out / TABLES, title, command)
    results = _pictured(results, benches, done, test, settings)
    results = replace(results, seconds=time.perf_counter() - began)
    results.save(out)
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
            scratch=Path(),
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
    except (RuntimeError, MemoryError, ValueError) as error:  # of a black box that is asked
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
        raise UserError(f"{bench.subject.name}: gives no predictions: {reason}") from error


def _announce(plan: Plan, test: Test, settings: AuditSettings, say: Say) -> None:
    side, count = test.pixels.size, len(test.pixels)
    say(f"plan, budget {settings.budget}, {count} images of {side} x {side}:")
    for line in plan.lines():
        say(line)
    say(f"  in all about {duration(plan.seconds)}, and the pictures of the cases")


def _pictured(
    results: Results,
    benches: Sequence[Bench],
    done: Done,
    test: Test,
    settings: AuditSettings,
) -> Results:
    """Return the results with a row an image, and with pictures of some cases.

    Without pictures where the audit was interrupted.
    """
    models = {bench.subject.name: bench.model for bench in benches}
    tables = {name: per_image(done, name) for name in models}
    shown: list[Case] = []
    if results.complete:
        subjects = [bench.subject for bench in benches]
        try:
            shown = cases(
                models, tables, test.pixels, settings, benches[0].device, subjects=subjects
            )
        except KeyboardInterrupt:
            results = replace(results, complete=False)
    every = rows(tables, test.pixels, list(models), shown)
    return replace(results, cases=shown, rows=every)


def _make_room(out: Path) -> None:
    """Make the folder, with no report of an earlier audit beside the tables of this one."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        for old in ("results.json", "report.html"):
            (out / old).unlink(missing_ok=True)
        shutil.rmtree(out / TABLES, ignore_errors=True)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror})") from None


def _nobody(model: str, stage: str, made: float, foreseen: float) -> None:
    pass
