"""What is audited: a model, its name, and the images it must not be tested on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from diascope.audit.parts import Interface
from diascope.data import Dataset, Preprocess
from diascope.errors import UserError
from diascope.models.checkpoint import WEIGHTS
from diascope.models.foreign import open_model
from diascope.models.modes import evaluating
from diascope.settings import validate

SPLIT = "split.csv"


@dataclass(frozen=True)
class Subject:
    """A model under audit.

    `split` (path, group, split) says which images it was trained on; `card` its classes, size,
    preprocessing, and whatever else the header of its file tells; `interface` what was found of
    its input and output, None for one that Diascope trained.
    """

    name: str
    model: nn.Module
    split: pd.DataFrame | None
    card: Mapping[str, Any]
    interface: Interface | None = None

    @property
    def gradients(self) -> bool:
        """Whether it can be differentiated."""
        return self.interface is None or self.interface.gradients

    @property
    def scores(self) -> bool:
        """Whether it returns more than labels."""
        return self.interface is None or self.interface.outputs != "labels"

    @property
    def architecture(self) -> str:
        """The backbone's timm name, else the name of the module's class."""
        spec = getattr(self.model, "spec", None)
        return str(getattr(spec, "name", type(self.model).__name__))


def open_subjects(
    addresses: Sequence[Path | str],
    *,
    classes: Sequence[str] | None = None,
    size: int | None = None,
) -> list[Subject]:
    """Open models (see `diascope.models.foreign`) that tell the same classes at the same size.

    `classes`, in the order of the outputs, and `size` hold for models whose file does not say.
    Raises `UserError` where one cannot be opened, or does not fit the first.
    """
    subjects = [_open(str(address), classes, size) for address in addresses]
    first = subjects[0]
    for subject, address in zip(subjects, addresses, strict=True):
        for key in ("classes", "size", "preprocess"):
            if subject.card[key] != first.card[key]:
                raise UserError(
                    f"{address}: its {key} ({subject.card[key]}) differs from that of "
                    f"{first.name} ({first.card[key]}); audit them apart"
                )
    names = [subject.name for subject in subjects]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two models are called '{twice[0]}'; rename one of them")
    return subjects


def _open(address: str, classes: Sequence[str] | None, size: int | None) -> Subject:
    model, card = open_model(address)
    path = Path(address)
    if "format" in card:  # ours
        for key in ("classes", "size", "preprocess"):
            if key not in card:
                raise UserError(f"{path}: its header does not say '{key}'; train it again")
        return Subject(_name(path), model, _split(path), card)
    declared = {"classes": list(classes or []), "size": size or card.get("size")}
    for key, value in declared.items():
        if not value:
            hint = ", in the order of its outputs" if key == "classes" else ""
            raise UserError(f"{address}: nothing says its {key}; give --{key}{hint}")
    names = list(classes or [])
    if len(set(names)) < len(names):
        raise UserError(f"--classes {','.join(names)}: a class is called twice")
    preprocess = validate(Preprocess, card.get("preprocess", {}), "preprocess")
    card = {**card, **declared, "preprocess": preprocess.model_dump()}
    _probe(address, model, card)
    name = re.sub(r"[^\w.-]+", "-", Path(address.partition(":")[2]).stem)
    return Subject(name, model, None, card)


@torch.no_grad()
def _probe(address: str, model: nn.Module, card: Mapping[str, Any]) -> None:
    """Raise `UserError` unless one grey image gives a logit for each class, or one for two."""
    shape = (1, card["preprocess"]["channels"], card["size"], card["size"])
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    try:
        with evaluating(model) as inner:
            logits = inner(torch.full(shape, 0.5, device=device))
    except Exception as error:  # whatever a foreign module raises
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{address}: fails on an image of shape {shape}: {reason}") from None
    if not isinstance(logits, torch.Tensor) or logits.ndim != 2:
        kind = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        raise UserError(f"{address}: returns {kind} for one image, not logits of shape (1, K)")
    known, given = logits.shape[1], len(card["classes"])
    if known != given and not (known == 1 and given == 2):
        raise UserError(
            f"{address}: has {known} outputs, and {given} classes are declared "
            f"({', '.join(card['classes'])}); give --classes in the order of its outputs"
        )


@dataclass(frozen=True)
class Unseen:
    """Which images (N,) to audit, `rows`, and why the others are `left_out`, by number."""

    rows: NDArray[np.bool_]
    left_out: dict[str, int]


def unseen(dataset: Dataset, subjects: Sequence[Subject]) -> Unseen:
    """Return the test images of `dataset`, and never a group that a subject was trained on.

    A subject knows a dataset by its name: where it was split from the dataset of this name, its
    own test images are audited, and what it was trained or validated on, by path or by group, is
    left out. Else the table's official test split is audited, or all of it. Raises `UserError`
    where nothing is left, or where a subject that was trained on a dataset of this name has lost
    its split file.
    """
    table = dataset.table
    official = (table.split == "test").to_numpy()
    allowed = official.copy() if official.any() else np.ones(len(dataset), dtype=bool)
    seen = np.zeros(len(dataset), dtype=bool)
    for subject in subjects:
        if subject.card.get("data", {}).get("name") != dataset.name:
            continue
        if subject.split is None:
            raise UserError(
                f"{subject.name}: was trained on {dataset.name}, and its {SPLIT} is not beside it: "
                "audit the run folder, or copy the file there"
            )
        train = subject.split[subject.split.split.isin(["train", "val"])]
        test = subject.split[subject.split.split == "test"]
        seen |= _known(table.path, train.path) | _known(table.group, train.group)
        tested = _known(table.path, test.path)
        if not tested.any():  # another layout of the same dataset: its lesions have kept their ids
            tested = _known(table.group, test.group)
        allowed &= tested if tested.any() else True
    allowed &= ~seen
    if not allowed.any():
        raise UserError(
            f"{dataset.name}: every image was used to train or validate the models; "
            "audit them on a test split or on other data"
        )
    left_out = {"seen in training or validation": int(seen.sum())}
    left_out["not in the test split"] = int((~seen & ~allowed).sum())
    return Unseen(allowed, left_out)


def seen_contents(subjects: Sequence[Subject]) -> set[str]:
    """Return the fingerprints of the images that some subject was trained or validated on."""
    contents: set[str] = set()
    for subject in subjects:
        if subject.split is not None and "content" in subject.split:
            contents |= set(subject.split.content[subject.split.split != "test"]) - {""}
    return contents


def _known(column: pd.Series[str], names: pd.Series[str]) -> NDArray[np.bool_]:
    """Return which entries of a column (N,) are among some names; nothing is among nothing."""
    return column.isin(set(names) - {""}).to_numpy()


def _name(path: Path) -> str:
    """Return the folder's name of a run or its weights, else the file's."""
    path = path.resolve()
    if path.name == WEIGHTS:
        return path.parent.name
    return path.name if path.is_dir() else path.stem


def _split(path: Path) -> pd.DataFrame | None:
    file = (path if path.is_dir() else path.parent) / SPLIT
    if not file.exists():
        return None
    try:
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot be read ({' '.join(str(error).split())})") from None
    if not {"path", "group", "split"} <= set(table.columns):
        raise UserError(f"{file}: not a split file: its columns must be path, group and split")
    return table
