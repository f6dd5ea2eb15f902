"""An audit from end to end: measure every model on the same images, summarise, check."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from diascope import __version__, hardware
from diascope.audit.cases import RULE, cases
from diascope.audit.checks import ORDER, run_checks
from diascope.audit.datachecks.audited import audited_findings, trained_sides
from diascope.audit.measure import measure
from diascope.audit.results import Results
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject, seen_contents, unseen
from diascope.audit.summarise import Summary
from diascope.data import Dataset, Pixels, Preprocess, load_pixels
from diascope.errors import UserError
from diascope.evaluation import write_table
from diascope.randomness import derive
from diascope.registry import to_settings

Progress = Callable[[str, str, int, int], None]  # (model, stage, settled, all)


@dataclass(frozen=True)
class Test:
    """The images that are audited, and why others are not: reason -> number.

    trained: images of the same dataset that a subject was trained or validated on.
    """

    pixels: Pixels
    left_out: dict[str, int]
    trained: Pixels | None = None


def unseen_pixels(
    dataset: Dataset, subjects: Sequence[Subject], settings: AuditSettings, **options: Any
) -> Test:
    """Return the pixels of the images that no subject has seen, prepared as the models expect.

    `settings.images` draws that many by hashed id. `options` go to `load_pixels`.
    """
    card = subjects[0].card
    of_classes = dataset.restrict(card["classes"])
    test = unseen(of_classes, subjects)
    left_out = {"of other classes": len(dataset) - len(of_classes), **test.left_out}
    dataset = of_classes.take(test.rows)
    if settings.images is not None and settings.images < len(dataset):
        lot = np.array([derive(settings.seed, "image", int(i)) for i in dataset.ids])
        left_out["not drawn"] = len(dataset) - settings.images
        dataset = dataset.take(np.sort(np.argsort(lot)[: settings.images]))
    preprocess = Preprocess.model_validate(card["preprocess"])
    pixels = load_pixels(dataset, card["size"], preprocess, **options)
    left_out["unreadable"] = len(dataset) - len(pixels.dataset)
    known = seen_contents(subjects)
    if known:
        again = np.array([content in known for content in pixels.fingerprints()], dtype=bool)
        left_out["the same picture as one seen in training or validation"] = int(again.sum())
        if again.all():
            raise UserError(
                f"{dataset.name}: every picture is one that the models were trained or validated "
                "on, under another name; audit them on other data"
            )
        pixels = pixels.take(~again)
    trained = _trained(of_classes, subjects, card, options) if settings.data_checks else None
    return Test(pixels, {reason: n for reason, n in left_out.items() if n}, trained)


def _trained(
    dataset: Dataset, subjects: Sequence[Subject], card: Mapping[str, Any], options: dict[str, Any]
) -> Pixels | None:
    """Return the pixels of the images that some subject was trained on; None where not here."""
    rows = trained_sides(dataset, subjects) != ""
    if not rows.any():
        return None
    preprocess = Preprocess.model_validate(card["preprocess"])
    options = {**options, "skip_unreadable": True}
    try:
        return load_pixels(dataset.take(rows), card["size"], preprocess, **options)
    except UserError:  # not one of them can be read: nothing to compare with
        return None


def audit(
    subjects: Sequence[Subject],
    test: Test,
    settings: AuditSettings,
    out: Path,
    *,
    title: str = "",
    command: str = "",
    device: torch.device | None = None,
    progress: Progress | None = None,
) -> Results:
    """Audit models on the same images and write `results.json` and the tables into `out`.

    Every model is compared with the first. Each table is written as soon as it is measured.
    """
    began = time.perf_counter()
    pixels = test.pixels
    _make_room(out)
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tables: dict[str, pd.DataFrame] = {}
    models: dict[str, nn.Module] = {}
    for subject in subjects:
        models[subject.name] = subject.model.to(device).to(memory_format=torch.channels_last)
        told = _counter(progress, subject.name, _work(pixels, settings))
        tables[subject.name] = measure(models[subject.name], pixels, settings, device, told)
        write_table(
            tables[subject.name],
            out / "tables" / f"{subject.name}.parquet",
            {"model": subject.name, "version": __version__, "settings": settings.model_dump()},
        )
    results = _results(subjects, tables, test, settings, title, command)
    results = replace(
        results,
        cases=cases(models, tables, pixels, settings, device),
        seconds=time.perf_counter() - began,
    )
    results.save(out)
    return results


def _results(
    subjects: Sequence[Subject],
    tables: Mapping[str, pd.DataFrame],
    test: Test,
    settings: AuditSettings,
    title: str,
    command: str,
) -> Results:
    dataset, side = test.pixels.dataset, test.pixels.size
    grid = settings.grid(side)
    summary = Summary(tables, dataset.groups, grid, settings.replicates, settings.seed)
    names = [subject.name for subject in subjects]
    models = [
        summary.model(
            s.name,
            s.architecture,
            sum(p.numel() for p in s.model.parameters()),
            s.card.get("objective", {}),
        )
        for s in subjects
    ]
    results = Results(
        title=title or f"{' and '.join(names)} on {dataset.name}",
        version=__version__,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=command,
        seed=settings.seed,
        hardware=hardware.describe(),
        seconds=0.0,
        data=_described(dataset, side, test.left_out),
        norm=settings.norm,
        attack=_without_eps(to_settings(settings.build_attack())),
        explainer=to_settings(settings.build_explainer()),
        epsilons=list(grid),
        models=models,
        comparisons=[summary.compare(name, names[0]) for name in names[1:]],
        findings=[],
        tables={name: f"tables/{name}.parquet" for name in names},
        cases_rule=RULE,
        settings=settings.model_dump(mode="json"),
    )
    findings = run_checks(results)
    if settings.data_checks:
        findings += audited_findings(
            test.pixels, test.trained, subjects, test.left_out, settings.seed
        )
    findings.sort(key=lambda finding: ORDER.index(finding.severity))
    return replace(results, findings=findings)


def _make_room(out: Path) -> None:
    """Make the folder, with no report of an earlier audit beside the tables of this one."""
    out.mkdir(parents=True, exist_ok=True)
    for old in ("results.json", "report.html"):
        (out / old).unlink(missing_ok=True)


def _without_eps(attack: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in attack.items() if key != "eps"}


def _described(dataset: Dataset, side: int, left_out: dict[str, int]) -> dict[str, Any]:
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


def _work(pixels: Pixels, settings: AuditSettings) -> int:
    """Return how many times an image is settled: once an epsilon, and once explained."""
    explained = pixels.masks is not None
    return len(pixels.dataset) * (len(settings.grid(int(pixels.images.shape[1]))) + explained)


def _counter(progress: Progress | None, name: str, total: int) -> Callable[[str, int], None]:
    settled = 0

    def report(stage: str, images: int) -> None:
        nonlocal settled
        settled += images
        if progress is not None:
            progress(name, stage, settled, total)

    return report
