"""The images of an examination: prepared as the model expects, and never seen in its training."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from diascope.audit.images import unseen_pixels
from diascope.audit.settings import AuditSettings
from diascope.audit.subject import Subject, seen_contents
from diascope.data import Dataset, Pixels, Preprocess, load_pixels, open_data
from diascope.errors import UserError, nearest
from diascope.randomness import derive
from diascope.studies.jobs import digest
from diascope.studies.planning import data_of, expanded
from diascope.studies.store import Store
from diascope.studies.study import TestSpec
from diascope.training.config import DataConfig, TrainConfig, read_config
from diascope.training.progress import Progress
from diascope.training.record import fingerprint
from diascope.training.run import CONFIG, SPLIT, open_parts

_SEED = 0  # of the draw of images


@dataclass(frozen=True)
class Tested:
    """The images of an examination, and why others of the data are not: reason -> number."""

    pixels: Pixels
    left_out: dict[str, int]


def trained_on(content: Mapping[str, Any], store: Store, data: Path | None) -> str:
    """Return the fingerprint of the images that a training's content names, as they are now.

    Raises `UserError` where runs of the store were trained on others under the same name.
    """
    now = _fingerprint(data_of(content, store.folder, data))
    name = digest(content["config"]["data"])
    before = store.fingerprint(name)
    if before is None:
        store.note_data(name, now, content["config"]["data"]["name"])
    elif before != now:
        raise UserError(
            f"{content['config']['data']['name']}: its images, labels or splits are not those that "
            f"runs of {store.folder} were trained on; restore them, or begin another --store"
        )
    return now


def tested(
    test: TestSpec,
    content: Mapping[str, Any],
    subject: Subject,
    before: Sequence[Subject],
    store: Store,
    data: Path | None,
) -> Tested:
    """Return the images that a run is examined on.

    content: of the run's training; before: the runs that it started from, whose training images
    are its own. Raises `UserError` where its images are no longer those it was split from, and
    where nothing is left.
    """
    subjects = [subject, *before]
    classes = tuple(subject.card["classes"])
    options = {"skip_unreadable": test.skip_unreadable}
    if test.data is None:
        config = data_of(content, store.folder, data)
        _as_trained(config, subject, store)
        options["skip_unreadable"] = config.skip_unreadable
    dataset = candidates(test, content, classes, store, data)
    if test.data is None and test.part in ("train", "val"):
        return _own_part(dataset, test, subject, options)
    dataset = replace(dataset, table=dataset.table.assign(split=""))  # its own runs say it, or all
    settings = AuditSettings(images=test.images, data_checks=False, seed=_SEED)
    found = unseen_pixels(dataset, subjects, settings, **options)
    _check_unseen(found.pixels, subjects)
    return Tested(found.pixels, found.left_out)


def candidates(
    test: TestSpec,
    content: Mapping[str, Any],
    classes: Sequence[str],
    store: Store,
    data: Path | None,
) -> Dataset:
    """Return the images of a test's data, those that the run was trained on among them.

    content: of the training; classes: of the model. Raises `UserError` where nothing fits.
    """
    if test.data is None:
        config = data_of(content, store.folder, data)
        dataset = _of_source(opened(config.name, config.classes, config.options), test)
    else:
        dataset = _elsewhere(test, classes, store.folder, data)
    there = [name for name in classes if dataset.counts.get(name)]
    if not there:
        raise UserError(
            f"{dataset.name}: no image of the models' classes ({', '.join(classes)}); it has "
            f"{', '.join(dataset.classes)}: give the test its 'classes', in the models' order"
        )
    return replace(dataset.restrict(there), classes=tuple(classes))


def _elsewhere(test: TestSpec, known: Sequence[str], store: Path, data: Path | None) -> Dataset:
    """Return the images of a test's own data, labels named as the model names its classes."""
    assert test.data is not None
    dataset = opened(
        expanded(test.data, store, data), None, expanded(dict(test.options), store, data)
    )
    if test.part != "all":
        rows = (dataset.table.split == test.part).to_numpy()
        if not rows.any():
            raise UserError(
                f"{dataset.name}: has no official {test.part} images; give the test the part 'all'"
            )
        dataset = dataset.take(rows)
    dataset = _of_source(dataset, test)
    if test.classes is not None:
        if len(test.classes) != len(known):
            raise UserError(
                f"{dataset.name}: the test names {len(test.classes)} classes, the models tell "
                f"{len(known)} apart: {', '.join(known)}"
            )
        dataset = dataset.restrict(test.classes)
        named = dict(zip(test.classes, known, strict=True))
        labels = dataset.table.label.map(lambda label: named.get(label, label))
        dataset = replace(dataset, table=dataset.table.assign(label=labels), classes=tuple(known))
    return dataset


def _of_source(dataset: Dataset, test: TestSpec) -> Dataset:
    if test.source is None:
        return dataset
    rows = (dataset.table.source == test.source).to_numpy()
    if not rows.any():
        known = set(dataset.table.source) - {""}
        raise UserError(
            f"{dataset.name}: no source '{test.source}': "
            f"{nearest(test.source, known) if known else 'it names none.'}"
        )
    return dataset.take(rows)


def _own_part(
    dataset: Dataset, test: TestSpec, subject: Subject, options: Mapping[str, Any]
) -> Tested:
    """Return images that the run was trained, or chosen, on."""
    assert subject.split is not None
    part = subject.split.path[subject.split.split == test.part]
    dataset = dataset.take(dataset.table.path.isin(part).to_numpy())
    if not len(dataset):
        raise UserError(f"{dataset.name}: the runs have no {test.part} images")
    left_out = {}
    if test.images is not None and test.images < len(dataset):
        lot = np.array([derive(_SEED, "image", int(i)) for i in dataset.ids])
        left_out["not drawn"] = len(dataset) - test.images
        dataset = dataset.take(np.sort(np.argsort(lot)[: test.images]))
    preprocess = Preprocess.model_validate(subject.card["preprocess"])
    return Tested(load_pixels(dataset, subject.card["size"], preprocess, **options), left_out)


def _check_unseen(pixels: Pixels, subjects: Sequence[Subject]) -> None:
    """Raise `RuntimeError` where a picture or a group was used in training: never to happen."""
    contents = seen_contents(subjects)
    if contents & set(pixels.fingerprints()):
        raise RuntimeError(f"{pixels.dataset.name}: a test image was used in training")
    for subject in subjects:
        if subject.split is None:
            raise UserError(
                f"{subject.name}: its {SPLIT} is gone; remove the run's folder, and train it again"
            )
        if subject.card["data"]["name"] != pixels.dataset.name:
            continue
        used = subject.split[subject.split.split.isin(["train", "val"])]
        table = pixels.dataset.table
        groups = set(used.group) - {""}
        if table.path.isin(used.path).any() or table.group.isin(groups).any():
            raise RuntimeError(f"{pixels.dataset.name}: a group was used in training and in test")


def _as_trained(config: DataConfig, subject: Subject, store: Store) -> None:
    """Raise `UserError` where the run's images are no longer those that it was trained on."""
    folder = store.run(subject.name)
    trained: TrainConfig = read_config(folder / CONFIG)
    if trained.data.split.fold != config.split.fold:  # of a search, whose refit takes all
        split = config.split.model_copy(update={"fold": trained.data.split.fold})
        config = config.model_copy(update={"split": split})
    before = subject.card["data"]["fingerprint"]
    if before != _fingerprint(config):
        raise UserError(
            f"{config.name}: its images, labels or splits have changed since {folder} was trained "
            "on them; restore them, or begin another --store"
        )


def opened(name: str, classes: Sequence[str] | None, options: Mapping[str, Any]) -> Dataset:
    """Return `open_data(name, classes, **options)`, the last two of which are kept."""
    return _open(json.dumps([name, classes, dict(options)], sort_keys=True))


@lru_cache(maxsize=2)
def _open(text: str) -> Dataset:
    name, classes, options = json.loads(text)
    return open_data(name, classes, **options)


def _fingerprint(config: DataConfig) -> str:
    return _print(config.model_dump_json())


@lru_cache(maxsize=32)
def _print(text: str) -> str:
    config = TrainConfig(data=DataConfig.model_validate_json(text))
    _, train, val = open_parts(config, Progress())
    return fingerprint({"train": train, "val": val})
