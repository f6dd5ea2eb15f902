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
    """A model under audit; `split` (path, group, split) says which images it was trained on."""

    name: str
    model: Classifier
    split: pd.DataFrame | None

    @property
    def card(self) -> dict[str, Any]:
        """The header of the model's file: classes, size, preprocessing, objective."""
        return self.model.card


def open_subjects(paths: Sequence[Path]) -> list[Subject]:
    """Open run folders or `.safetensors` files that tell the same classes at the same size.

    Raises `UserError` where one cannot be opened, or does not fit the first.
    """
    subjects = [Subject(_name(path), load_model(path), _split(path)) for path in paths]
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
    """Return which images (N,) to audit: the test split, and never a group that was trained on.

    Where a subject's own split names test images of this dataset, those are audited; else those
    that the dataset's table calls test; else all of them. What any subject was trained or
    validated on, by path or by group, is left out. Raises `UserError` where nothing is left.
    """
    table = dataset.table
    allowed = np.ones(len(dataset), dtype=bool)
    official = (table.split == "test").to_numpy()
    if official.any():
        allowed &= official
    for subject in subjects:
        if subject.split is None:
            continue
        tested = subject.split[subject.split.split == "test"]
        seen = subject.split[subject.split.split != "test"]
        own = table.path.isin(tested.path).to_numpy()
        if own.any():
            allowed &= own
        if table.path.isin(subject.split.path).any():  # else patient 7 is another hospital's
            groups = set(seen.group) - {""}
            allowed &= ~(table.path.isin(seen.path) | table.group.isin(groups)).to_numpy()
    if not allowed.any():
        raise UserError(
            f"{dataset.name}: every image was used to train or validate the models; "
            "audit them on a test split or on other data"
        )
    return allowed


def _name(path: Path) -> str:
    return path.resolve().name if path.is_dir() else path.stem


def _split(path: Path) -> pd.DataFrame | None:
    file = (path if path.is_dir() else path.parent) / SPLIT
    if not file.exists():
        return None
    return pd.read_csv(file, dtype=str, keep_default_na=False)
