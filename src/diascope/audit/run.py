"""An audit from end to end: measure every model on the same images, summarise, check."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from diascope import __version__, hardware
from diascope.audit.cases import RULE, cases
from diascope.audit.checks import run_checks
from diascope.audit.measure import measure
from diascope.audit.results import Results
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject, unseen
from diascope.audit.summarise import Summary
from diascope.data import Dataset, Pixels, Preprocess, load_pixels
from diascope.evaluation import write_table
from diascope.randomness import derive

Progress = Callable[[str, str, int, int], None]  # (model, stage, settled, all)


def unseen_pixels(
    dataset: Dataset, subjects: Sequence[Subject], settings: AuditSettings, **options: Any
) -> Pixels:
    """Return the pixels of the images that no subject has seen, prepared as the models expect.

    `settings.images` draws that many by hashed id. `options` go to `load_pixels`.
    """
    card = subjects[0].card
    dataset = dataset.restrict(card["classes"])
    dataset = dataset.take(unseen(dataset, subjects))
    if settings.images is not None and settings.images < len(dataset):
        lot = np.array([derive(settings.seed, "image", int(i)) for i in dataset.ids])
        dataset = dataset.take(np.sort(np.argsort(lot)[: settings.images]))
    preprocess = Preprocess.model_validate(card["preprocess"])
    return load_pixels(dataset, card["size"], preprocess, **options)


def audit(
    subjects: Sequence[Subject],
    pixels: Pixels,
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
    results = _results(subjects, tables, pixels, settings, title, command)
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
    pixels: Pixels,
    settings: AuditSettings,
    title: str,
    command: str,
) -> Results:
    dataset, side = pixels.dataset, int(pixels.images.shape[1])
    grid = settings.grid(side)
    summary = Summary(tables, dataset.groups, grid, settings.replicates, settings.seed)
    names = [subject.name for subject in subjects]
    models = [
        summary.model(
            s.name,
            s.model.spec.name,
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
        data=_described(dataset, side),
        norm=settings.norm,
        attack={**settings.attack, "norm": settings.norm},
        explainer=dict(settings.explainer),
        epsilons=list(grid),
        models=models,
        comparisons=[summary.compare(name, names[0]) for name in names[1:]],
        findings=[],
        tables={name: f"tables/{name}.parquet" for name in names},
        cases_rule=RULE,
    )
    return replace(results, findings=run_checks(results))


def _described(dataset: Dataset, side: int) -> dict[str, Any]:
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
