"""Whether the images and weights that finished jobs were done with are still the same.

A job's key holds the name of its data and not their content, so that keys depend on no folder. Its
record therefore holds a digest of the content, and what is finished counts only where that is the
digest of the data at hand. Nothing is decoded twice: a digest is kept in the store under what the
files show from outside, their sizes and times.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from diascope.data import Dataset
from diascope.data.dataset import ReadError
from diascope.data.stamps import stamps
from diascope.errors import UserError
from diascope.files import write_text
from diascope.studies.images import opened
from diascope.studies.jobs import Job, digest
from diascope.studies.planning import expanded
from diascope.studies.store import Store
from diascope.training.record import content_of

CHANGED = "changed.txt"  # of the store: what is to be removed so that it is done anew
_SAMPLE = 512  # images whose pixels and regions are hashed, evenly spread

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Source:
    """The data that jobs name, "{data}" still in it; settings: of `opened`, as JSON has them."""

    name: str
    key: str
    classes: tuple[str, ...] | None
    options: tuple[tuple[str, Any], ...]

    @classmethod
    def of(cls, job: Job, config: Record) -> Source:
        """Return the data of a job; config: of the run that it makes or examines."""
        test = job.content.get("test") or {}
        named = test if test.get("data") is not None else config["data"]
        name = named["data"] if named is test else named["name"]
        classes = None if named is test else named["classes"]
        options = named.get("options") or {}
        key = digest([name, classes, options])
        return cls(name, key, classes and tuple(classes), tuple(options.items()))

    def __hash__(self) -> int:
        return hash(self.key)

    def digest(self, store: Store, data: Path | None) -> str:
        """Return the digest of its rows, and of the pixels and regions of up to 512 of them.

        Raises `UserError` where they are not here.
        """
        options = expanded(dict(self.options), store.folder, data)
        dataset = opened(expanded(self.name, store.folder, data), self.classes, options)
        outside, known = _outside(dataset), store.digests(self.key)
        if outside not in known:
            known[outside] = _inside(dataset)
            store.note_digests(self.key, self.name, known)
        return known[outside]


def made_with(job: Job, store: Store, data: Path | None) -> dict[str, str]:
    """Return what the record of a job is to hold of the images and weights at hand."""
    config = _config(job, store)
    found = {"images_digest": Source.of(job, config).digest(store, data)}
    weights = _weights(job, store, data)
    return found if weights is None else {**found, "weights_digest": weights}


def check_unchanged(
    jobs: Sequence[Job], store: Store, data: Path | None, *, at_hand: bool = True
) -> list[str]:
    """Raise `UserError` where finished jobs were done with other images or weights than these.

    They are compared with one another, and, where `at_hand`, with what is here. Returns a line for
    each that could not be compared.
    """
    done = [(job, record) for job in jobs if (record := store.record(job)) is not None]
    by_source, said = dict[Source, list[tuple[Job, Record]]](), list[str]()
    configs = {job.key: job.content["config"] for job in jobs if job.kind == "train"}
    for job, record in done:
        config = configs.get(job.content.get("run", job.key)) or _config(job, store)
        by_source.setdefault(Source.of(job, config), []).append((job, record))
    for source, some in by_source.items():
        known = [(job, str(record["images_digest"])) for job, record in some
                 if "images_digest" in record]  # fmt: skip
        if len(known) < len(some):
            said.append(
                f"{source.name}: {len(some) - len(known)} finished jobs do not tell which images "
                "they were done with"
            )
        if not known:
            continue
        now = known[-1][1]
        if at_hand:
            try:
                now = source.digest(store, data)
            except UserError as error:
                said.append(f"whether images are still those of finished jobs is unknown: {error}")
        if others := [job for job, then in known if then != now]:
            _refuse(f"{source.name}: its images, labels or regions are", others, jobs, store)
    if others := [job for job, record in done if _trained_anew(job, record, store)]:
        _refuse(
            "a run of it was trained anew on other images: its weights are", others, jobs, store
        )
    if at_hand:
        for job, record in done:
            if (then := record.get("weights_digest")) is None:
                continue
            if (now_ := _weights(job, store, data)) is not None and now_ != then:
                file = job.content["config"]["model"]["weights"]
                _refuse(f"{file}: its content is", [job], jobs, store)
    return said


def _trained_anew(job: Job, record: Record, store: Store) -> bool:
    """Tell whether a table is of a run that has been trained on other images since."""
    if job.kind == "train" or "trained_on" not in record:
        return False
    run = store.run_record(job.content["run"])
    return run is not None and run["data"]["fingerprint"] != record["trained_on"]


def _refuse(what: str, others: Sequence[Job], jobs: Sequence[Job], store: Store) -> NoReturn:
    """Raise `UserError` for finished jobs that are of something else, and name their files."""
    stale = {job.key for job in others}
    gone = list[Path]()
    for job in jobs:
        if job.key in stale or stale & set(job.needs):
            stale.add(job.key)
            gone += store.files(job)
            if job.kind == "train":
                gone.append(store.data_file(digest(job.content["config"]["data"])))
    file = store.folder / CHANGED
    lines = dict.fromkeys(shlex.quote(str(path)) for path in gone if path.exists())
    write_text(file, "".join(f"{line}\n" for line in lines))
    more = f" and {len(others) - 1} others" if len(others) > 1 else ""
    raise UserError(
        f"{what} not those of '{others[0].label}'{more}, finished before: restore them, begin "
        f"another --store, or do what depends on them anew: xargs rm -rf < {shlex.quote(str(file))}"
    )


def _config(job: Job, store: Store) -> Record:
    """Return the configuration of the run that a job makes or examines."""
    content = job.content if job.kind == "train" else store.trained(job.content["run"])["content"]
    found: Record = content["config"]
    return found


def _weights(job: Job, store: Store, data: Path | None) -> str | None:
    """Return the digest of the file of weights that a training starts from; None without one."""
    weights = job.content["config"]["model"]["weights"] if job.kind == "train" else None
    if weights is None or "{run:" in weights or ("{data}" in weights and data is None):
        return None
    return content_of(Path(expanded(weights, store.folder, data)))


def _outside(dataset: Dataset) -> str:
    """Return a digest of all rows, and of the sizes and times of their files."""
    found = _rows(dataset)
    for column in ("path", "mask"):
        there = [name for name in dataset.table[column] if name]  # which rows have one, rows tell
        found.update("\n".join(stamps(dataset.reader, there)).encode())
    return str(found.hexdigest())


def _inside(dataset: Dataset) -> str:
    """Return a digest of all rows, and of what a sample of them shows."""
    found = _rows(dataset)
    for row in np.unique(np.linspace(0, len(dataset) - 1, _SAMPLE).astype(np.int64)):
        path, mask = dataset.table.path.iloc[row], dataset.table["mask"].iloc[row]
        for place, read in ((path, dataset.reader.image), (mask, dataset.reader.mask)):
            try:
                pixels = np.ascontiguousarray(read(place)) if place else np.zeros(0)
                found.update(repr((pixels.shape, pixels.dtype.str)).encode() + pixels.tobytes())
            except ReadError:
                found.update(b"unreadable")
    return str(found.hexdigest())


def _rows(dataset: Dataset) -> Any:
    found = hashlib.blake2b(digest_size=16)
    found.update(repr((dataset.classes, len(dataset))).encode())
    found.update(dataset.table.to_csv(index=False).encode())
    return found
