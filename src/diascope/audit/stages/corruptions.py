"""Accuracy under everyday corruptions, each image beside itself as it was."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from diascope.attacks import Threat
from diascope.audit.bench import Bench, Rows
from diascope.audit.parts import CorruptionScore
from diascope.audit.stages import STAGES, Measured, Stage, blank
from diascope.audit.summarise import bounds
from diascope.evaluation import bootstrap_curve, bootstrap_curve_difference
from diascope.evaluation.corruptions import Corruption, corruptions
from diascope.models import heads
from diascope.models.modes import exactly

Floats = NDArray[np.float64]


def _rows(bench: Bench) -> Rows:
    return bench.drawn(bench.effort.corruption_images)


def _kinds(bench: Bench) -> list[tuple[str, Corruption, int]]:
    """Return every corruption with every severity; those of colour only where there is colour."""
    colour = bench.pixels.channels == 3 and not bench.pixels.grey and _coloured(bench)
    return [
        (name, corrupt, severity)
        for name, corrupt in corruptions().items()
        if colour or not corrupt.needs_colour
        for severity in bench.effort.severities
    ]


def _coloured(bench: Bench) -> bool:
    """Tell whether some of the images drawn are not grey."""
    for rows in bench.batches(_rows(bench)):
        x = bench.pixels.raw(rows)
        if x.shape[1] == 3 and bool((x[:, :1] != x[:, 1:]).any()):
            return True
    return False


def _passes(bench: Bench) -> float:
    return len(_rows(bench)) * len(_kinds(bench))


@torch.no_grad()
def _measure(bench: Bench) -> Measured:
    rows, kinds = _rows(bench), _kinds(bench)
    right = np.zeros((len(rows), len(kinds)))
    moved = np.zeros((len(rows), len(kinds)))
    threat, done = Threat(bench.settings.norm, 0.0), 0
    with exactly(bench.model) as inner:
        for part in bench.batches(rows):
            here = slice(done, done + len(part))
            x, y = bench.pixels.x(part, bench.device), bench.pixels.y(part, bench.device)
            ids = bench.pixels.ids(part).to(bench.device)
            for k, (_, corrupt, severity) in enumerate(kinds):
                worse = corrupt(x, severity, ids).contiguous(memory_format=torch.channels_last)
                right[here, k] = heads.is_correct(inner(worse), y).cpu().numpy()
                moved[here, k] = threat.size(worse - x).cpu().numpy()
            bench.tell(len(part) * len(kinds))
            done += len(part)
    columns = {}
    for k, (name, _, severity) in enumerate(kinds):
        column = blank(bench)
        column[rows] = right[:, k]
        columns[f"{name}:{severity}:correct"] = column
    return Measured(_scores(bench, rows, kinds, right, moved.mean(0)), columns, images=len(rows))


def _scores(
    bench: Bench,
    rows: Rows,
    kinds: list[tuple[str, Corruption, int]],
    right: Floats,
    distances: Floats,
) -> list[CorruptionScore]:
    """Return the scores of `right` (n, M), whose columns share their resamples."""
    clean = bench.table.correct.to_numpy(dtype=np.float64)[rows]
    groups = bench.groups[rows]
    accuracy = bootstrap_curve(right, groups, **bench.bootstrap)
    before = np.repeat(clean[:, None], right.shape[1], axis=1)
    drop = bootstrap_curve_difference(before, right, groups, **bench.bootstrap)
    return [
        CorruptionScore(name, severity, len(rows), bounds(a), bounds(d), float(distance))
        for (name, _, severity), a, d, distance in zip(
            kinds, accuracy, drop, distances, strict=True
        )
    ]


CORRUPTIONS = STAGES.register("corruptions")(
    Stage(
        kind=list[CorruptionScore],
        passes=_passes,
        measure=_measure,
        order=30,
        effort=("corruption_images", "severities"),
    )
)
