"""From what the stages found to the results: tables, intervals, comparisons, findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diascope import __version__, hardware
from diascope.audit.attackers import main_attack
from diascope.audit.cases import RULE
from diascope.audit.checks import ORDER, run_checks
from diascope.audit.comparing import with_parts
from diascope.audit.images import Test
from diascope.audit.mapsummary import with_correct
from diascope.audit.perform import Done, per_image
from diascope.audit.positive import positive_classes
from diascope.audit.results import Finding, ModelResult, Results
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject
from diascope.audit.summarise import Summary
from diascope.data import Dataset
from diascope.evaluation import write_table
from diascope.registry import to_settings

_PARTS = {part.name for part in fields(ModelResult)}


def assemble(
    subjects: Sequence[Subject],
    done: Done,
    test: Test,
    settings: AuditSettings,
    folder: Path,
    title: str,
    command: str,
    of_data: Sequence[Finding] = (),
) -> Results:
    """Return the results of what is done, without cases, and write a table a model to `folder`.

    of_data: what was found in the images themselves.
    """
    dataset, side = test.pixels.dataset, test.pixels.size
    grid, names = settings.grid(side), [subject.name for subject in subjects]
    tables = {name: per_image(done, name) for name in names}
    for name, table in tables.items():
        told = {"model": name, "version": __version__, "settings": settings.model_dump(mode="json")}
        write_table(table, folder / f"{name}.parquet", told)
    summary = Summary(tables, dataset.groups, grid, settings.replicates, settings.seed)
    models = [_model(subject, summary, done) for subject in subjects]
    results = Results(
        title=title or f"{' and '.join(names)} on {dataset.name}",
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        seed=settings.seed,
        hardware=hardware.describe(),
        seconds=0.0,
        data=described(dataset, side, test.left_out),
        norm=settings.norm,
        attack=_without_eps(to_settings(main_attack(settings, subjects[0]))),
        explainer=to_settings(settings.build_explainer()),
        epsilons=list(grid),
        models=models,
        comparisons=[
            with_parts(summary.compare(each.name, names[0]), summary, each, models[0])
            for each in models[1:]
        ],
        findings=[],
        tables={name: f"{folder.name}/{name}.parquet" for name in names},
        cases_rule=RULE,
        settings=settings.model_dump(mode="json"),
        budget=settings.budget,
        effort=settings.build_effort().model_dump(mode="json"),
        reference_eps=settings.reference(side),
        positive=list(positive_classes(dataset.classes, settings.positive)[0]),
        stages=done.reports,
        complete=done.complete,
    )
    findings = sorted(
        [*run_checks(results), *of_data], key=lambda finding: ORDER.index(finding.severity)
    )
    return replace(results, findings=findings)


def _model(subject: Subject, summary: Summary, done: Done) -> ModelResult:
    parameters = sum(p.numel() for p in subject.model.parameters())
    objective = subject.card.get("objective", {})
    model = summary.model(subject.name, subject.architecture, parameters, objective)
    table = summary.tables[subject.name]
    found = {
        name: result
        for name, result in done.results[subject.name].items()
        if name in _PARTS and result is not None
    }
    if len(summary.tables) > 1 and found.get("maps"):
        columns = {str(column): values.to_numpy() for column, values in table.items()}
        found["maps"] = with_correct(
            found["maps"], columns, summary.all_correct, summary.groups, summary.options
        )
    queries = subject.queries + done.read_back.get(subject.name, 0)
    return replace(model, interface=subject.interface, queries=queries, **found)


def _without_eps(attack: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attack.items() if key != "eps"}


def described(dataset: Dataset, side: int, left_out: dict[str, int]) -> dict[str, Any]:
    """Return what is said of the images: how many, of which classes, how likely by chance."""
    counts = dataset.counts
    return {
        "name": dataset.name,
        "images": len(dataset),
        "groups": len(set(dataset.groups)),
        "classes": list(dataset.classes),
        "counts": counts,
        "size": side,
        "sources": sorted(set(dataset.table.source) - {""}),
        "chance": 1 / len(dataset.classes),
        "left_out": left_out,
        "majority": max(counts.values()) / len(dataset),
    }
