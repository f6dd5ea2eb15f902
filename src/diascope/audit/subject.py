"""What is audited: a model, its name, and the images it must not be tested on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.data import Dataset
from diascope.errors import UserError
from diascope.models import Classifier, load_model

SPLIT = "split.csv"


@dataclass(frozen=True)
class Subject:
    """A model under audit; `seen` holds the paths and groups of its training and validation."""

    name: str
    model: Classifier
    seen: pd.DataFrame | None

    @property
    def card(self) -> dict[str, Any]:
        """The header of the model's file: classes, size, preprocessing, objective."""
        return self.model.card


def open_subjects(paths: Sequence[Path]) -> list[Subject]:
    """Open run folders or `.safetensors` files that tell the same classes at the same size.

    Raises `UserError` where one cannot be opened, or does not fit the first.
    """
    subjects = [Subject(_name(path), load_model(path), _seen(path)) for path in paths]
    first = subjects[0]
    for subject, path in zip(subjects, paths, strict=True):
        for key in ("classes", "size", "preprocess"):
            if key not in subject.card:
                raise UserError(f"{path}: its header does not say '{key}'; train it again")
            if subject.card[key] != first.card[key]:
                raise UserError(
                    f"{path}: its {key} ({subject.card[key]}) differs from that of "
                    f"{first.name} ({first.card[key]}); audit them apart"
                )
    names = [subject.name for subject in subjects]
    if len(set(names)) < len(names):
        raise UserError(f"two models are called '{names[-1]}'; rename one of the folders")
    return subjects


def unseen(dataset: Dataset, subjects: Sequence[Subject]) -> NDArray[np.bool_]:
    """Return which images (N,) no subject was trained or validated on, by path and by group.

    Where the table names an official test split, only that is audited.
    """
    allowed = np.ones(len(dataset), dtype=bool)
    if (dataset.table.split == "test").any():
        allowed &= (dataset.table.split == "test").to_numpy()
    for subject in subjects:
        if subject.seen is None:
            continue
        known = dataset.table.path.isin(subject.seen.path)
        groups = set(subject.seen.group) - {""}
        known |= dataset.table.group.isin(groups)
        allowed &= ~known.to_numpy()
    if not allowed.any():
        raise UserError(
            f"{dataset.name}: every image was used to train or validate the models; "
            "audit them on a test split or on other data"
        )
    return allowed


def _name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _seen(path: Path) -> pd.DataFrame | None:
    file = (path if path.is_dir() else path.parent) / SPLIT
    if not file.exists():
        return None
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    return table[table.split != "test"]
