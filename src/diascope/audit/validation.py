"""The images that models held out for choosing: where a threshold may be chosen, never audited."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject
from diascope.data import Dataset, Pixels, Preprocess, load_pixels
from diascope.errors import UserError
from diascope.randomness import derive

MOST = 2000  # images: 200 positive ones in ten hold a sensitivity to about 4 points


def validation_pixels(
    dataset: Dataset, subjects: Sequence[Subject], settings: AuditSettings, **options: Any
) -> Pixels | None:
    """Return the validation images of `dataset` for all of the subjects; None where none are known.

    Those that each subject's own split calls "val", by path, or by group where the paths are
    others; of a subject that was not trained on a dataset of this name the official validation
    split, where the table names one beside a test split. Never an image whose group some subject
    was trained on or whose group stands in the test split. At most `MOST`, drawn by hashed id,
    prepared as the models expect; `options` go to `load_pixels`, unreadable images are skipped.
    """
    card = subjects[0].card
    dataset = dataset.restrict(card["classes"])
    rows = np.logical_and.reduce([held_out(dataset, subject) for subject in subjects])
    rows &= dataset.labels >= 0
    dataset = dataset.take(rows)
    if not len(dataset):
        return None
    if len(dataset) > MOST:
        lot = np.array([derive(settings.seed, "validation", int(i)) for i in dataset.ids])
        dataset = dataset.take(np.sort(np.argsort(lot)[:MOST]))
    preprocess = Preprocess.model_validate(card["preprocess"])
    try:
        return load_pixels(
            dataset, card["size"], preprocess, **{**options, "skip_unreadable": True}
        )
    except UserError:  # not one of them can be read
        return None


def held_out(dataset: Dataset, subject: Subject) -> NDArray[np.bool_]:
    """Return which images (N,) of `dataset` the subject held out for choosing."""
    table = dataset.table
    own = subject.split is not None and subject.card.get("data", {}).get("name") == dataset.name
    if not own:
        official = table.split.to_numpy()
        tested = _among(table.group, set(table.group[table.split == "test"]))
        rows: NDArray[np.bool_] = (official == "val") & ~tested & (official == "test").any()
        return rows
    assert subject.split is not None
    parts = dict(iter(subject.split.groupby("split")))
    if "val" not in parts:
        return np.zeros(len(table), dtype=bool)
    chosen = _among(table.path, set(parts["val"].path))
    if not chosen.any():  # another layout of the same dataset: its lesions have kept their ids
        chosen = _among(table.group, set(parts["val"].group))
    for side in ("train", "test"):
        if side in parts:
            chosen = chosen & ~_among(table.path, set(parts[side].path))
            chosen = chosen & ~_among(table.group, set(parts[side].group))
    return chosen


def _among(column: Any, names: set[str]) -> NDArray[np.bool_]:
    """Return which entries of a column (N,) are among some names; nothing is among nothing."""
    found: NDArray[np.bool_] = column.isin(names - {""}).to_numpy()
    return found
