"""What is audited: a model, its name, and the images it must not be tested on."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import nn

from diascope.audit.parts import Interface
from diascope.data import Dataset, Preprocess, ReadError
from diascope.errors import UserError
from diascope.models.black_box import BlackBox
from diascope.models.checkpoint import WEIGHTS
from diascope.models.inputs import Adapter, InputSettings
from diascope.models.opening import Opened, open_classifier
from diascope.models.opening.fixed import FixedBatch
from diascope.models.probe import MOST, Sample, probe
from diascope.models.probing.structure import hints_of
from diascope.models.sealed import Sealed
from diascope.randomness import derive
from diascope.settings import validate

SPLIT = "split.csv"
PYTHON = ("module", "callable")  # kinds that are addressed as package.module:thing
VAGUE = {  # words of names that say nothing of the model that a function makes
    *("build", "builder", "make", "create", "construct", "get", "load", "open", "new", "init"),
    *("a", "the", "my", "this", "our"),
    *("model", "net", "network", "classifier", "nn", "module", "factory", "fn", "function"),
    *("predict", "predictor", "score", "scores", "ask", "call", "classify", "forward", "main"),
}
SAMPLED = 256  # pixels a side of the images of a probe, where the size is not known


@dataclass(frozen=True)
class Subject:
    """A model under audit.

    `split` (path, group, split) says which images it was trained on; `card` its classes, size,
    preprocessing, and whatever else the header of its file tells; `interface` what was found of
    its input and output, None where nobody looked.
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
    def queries(self) -> int:
        """How many images it has been asked about until now, where it is a black box; else 0."""
        model = self._inner
        return model.queries if isinstance(model, BlackBox) else 0

    @property
    def _inner(self) -> nn.Module:
        model = self.model
        while isinstance(model, Adapter | FixedBatch):
            model = model.inner
        return model

    @property
    def architecture(self) -> str:
        """The backbone's timm name, else the name of the module's class."""
        model = self._inner
        if isinstance(model, BlackBox):
            return "black box"
        if isinstance(model, Sealed):
            model = model.__dict__["inner"]
        spec = getattr(model, "spec", None)
        named = getattr(model, "original_name", None)  # of TorchScript
        return str(getattr(spec, "name", named or type(model).__name__))


def open_subjects(
    addresses: Sequence[Path | str],
    *,
    classes: Sequence[str] | None = None,
    size: int | None = None,
    input: Mapping[str, Any] | None = None,
    sample: Dataset | Sample | None = None,
) -> list[Subject]:
    """Open models (see `diascope.models.opening`) that tell the same classes at the same size.

    `classes`, in the order of the outputs, `size` and `input`, the settings of `InputSettings`,
    hold for models that Diascope did not train; what is not declared of their input is found by a
    probe (`diascope.models.probe`) on images of `sample`. Raises `UserError` where one cannot be
    opened, or does not fit the first.
    """
    declared = dict(input or {}) if size is None else {"size": size, **(input or {})}
    settings = validate(InputSettings, declared, "input")
    subjects = [_open(str(a), classes, size, settings, sample) for a in addresses]
    first = subjects[0]
    for subject, address in zip(subjects, addresses, strict=True):
        for key in ("classes", "size", "preprocess"):
            if subject.card[key] != first.card[key]:
                raise UserError(
                    f"{address}: its {key} ({subject.card[key]}) differs from that of "
                    f"{first.name} ({first.card[key]}); audit them apart"
                )
    subjects = _told_apart(subjects, [str(address) for address in addresses])
    names = [subject.name for subject in subjects]
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"two models are called '{twice[0]}'; rename one of them")
    return subjects


def _told_apart(subjects: list[Subject], addresses: list[str]) -> list[Subject]:
    """Return the subjects; of Python's functions of one name each bears its whole module's, too."""
    names = [subject.name for subject in subjects]
    return [
        replace(subject, name=address.replace(":", "."))
        if names.count(subject.name) > 1
        and subject.interface is not None
        and subject.interface.kind in PYTHON
        else subject
        for subject, address in zip(subjects, addresses, strict=True)
    ]


def _open(
    address: str,
    classes: Sequence[str] | None,
    size: int | None,
    settings: InputSettings,
    sample: Dataset | Sample | None,
) -> Subject:
    opened, path = open_classifier(address), Path(address)
    if opened.kind == "run":
        for key in ("classes", "size", "preprocess"):
            if key not in opened.card:
                raise UserError(f"{path}: its header does not say '{key}'; train it again")
        _check_header(path, opened, classes, size)
        return Subject(_name(path), opened.model, _split(path), opened.card, _of_run(opened))
    names = list(classes or [])
    if len(set(names)) < len(names):
        raise UserError(f"--classes {','.join(names)}: a class is called twice")
    hints = hints_of(opened.model)
    known = names or list(hints.classes)
    if isinstance(sample, Dataset):
        side = size or settings.size or opened.size or hints.size or SAMPLED
        sample = _sample(sample, known, side) if known else None
    found = probe(opened, address, classes=names, size=size, settings=settings, sample=sample)
    if not found.classes:
        raise UserError(
            f"{address}: nothing says its classes; give --classes, in the order of its outputs"
        )
    preprocess = Preprocess.model_validate({"channels": found.channels})
    card = {
        **opened.card,
        "classes": list(found.classes),
        "size": found.size,
        "preprocess": preprocess.model_dump(),
    }
    interface = Interface(
        kind=opened.kind,
        gradients=found.gradients,
        outputs=found.outputs,
        channels=found.channels,
        size=found.size,
        input=found.input,
        declared=found.declared,
        statements=found.statements,
        problems=[told for _, told in found.problems],
        codes=[code for code, _ in found.problems],
    )
    return Subject(_title(address, opened.kind), found.model, None, card, interface)


def _check_header(
    path: Path, opened: Opened, classes: Sequence[str] | None, size: int | None
) -> None:
    """Raise `UserError` where a header is damaged, or says other than what is declared."""
    validate(Preprocess, opened.card["preprocess"], f"{path}: preprocess")
    known, side = opened.card["classes"], opened.card["size"]
    outputs = int(opened.card["model"]["num_classes"])
    if not isinstance(side, int) or not 1 <= side <= 8192:
        raise UserError(f"{path}: its header says size {side!r}: no height of images in pixels")
    if len(known) != max(2, outputs):
        raise UserError(
            f"{path}: its header names {len(known)} classes ({', '.join(map(str, known))}), and it "
            f"has {outputs} outputs; train it again"
        )
    if classes and list(classes) != list(known):
        raise UserError(
            f"--classes {','.join(classes)}: {path} says itself what its outputs are, "
            f"{','.join(known)}; leave --classes out"
        )
    if size is not None and size != side:
        raise UserError(f"--size {size}: {path} was trained at {side}; leave --size out")


def _of_run(opened: Opened) -> Interface:
    """Return the interface of a model that Diascope trained, as its header tells it."""
    channels = opened.card["preprocess"].get("channels", 3)
    return Interface(
        kind="run",
        gradients=True,
        outputs="logits",
        channels=channels,
        size=opened.card["size"],
        input=f"{'RGB' if channels == 3 else 'grey'} in [0, 1]; normalises inside",
        declared=True,
    )


def _sample(dataset: Dataset, classes: Sequence[str], side: int) -> Sample | None:
    """Return images of a dataset for a probe, each class in its turn; None where none are readable.

    Of images outside an official test split, where there are some. Which are drawn depends on
    their ids alone.
    """
    if not set(classes) <= set(dataset.classes):
        return None
    dataset = dataset.restrict(classes)
    apart = ((dataset.table.split != "test") & (dataset.table.split != "")).to_numpy()
    dataset = dataset.take(apart) if apart.any() else dataset
    dataset = dataset.take(dataset.labels >= 0)
    lot = np.array([derive(0, "probe", int(i)) for i in dataset.ids], dtype=np.uint64)
    order = np.argsort(lot)
    place = pd.Series(dataset.labels[order]).groupby(dataset.labels[order]).cumcount().to_numpy()
    images, labels, prepare = [], [], Preprocess()
    for row in order[np.argsort(place, kind="stable")][:MOST]:
        try:
            image = prepare.image(dataset.reader.image(dataset.table.path.iloc[row]), side)
        except ReadError:
            continue
        images.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        labels.append(int(dataset.labels[row]))
    if not images:
        return None
    return Sample(torch.stack(images).float().div_(255), torch.tensor(labels))


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


def _title(address: str, kind: str) -> str:
    """Return what a model that was not trained here is called: by its file, or its function.

    A function whose name could be any model's, such as `build` or `make_model`, is called with
    its module: `skin.build`.
    """
    before, _, after = address.partition(":")
    if kind in PYTHON:
        vague = set(after.lower().split("_")) <= VAGUE | {""}
        return f"{before.rpartition('.')[2]}.{after}" if vague else after
    file = Path(address) if Path(address).exists() else Path(after)
    return re.sub(r"[^\w.-]+", "-", file.stem)


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
