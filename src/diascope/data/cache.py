"""Decoded pixels, kept on disk at the working size and mapped into memory.

A cache is one folder, named by a hash of all that its pixels depend on: the rows' paths and
stamps, the preprocessing, the size, the format. It is built aside and renamed into place, so
that it is complete or absent; of two builders at once, the second to finish takes what the
first made. A dataset whose rows all lie in a cache that is there already is served from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from diascope.data.dataset import Dataset
from diascope.data.pixels import Pixels, Rows
from diascope.data.preprocess import Preprocess
from diascope.data.verify import Problem, Progress, in_threads, label_problem, read_row, refusal
from diascope.errors import UserError

FORMAT = 1
_ASIDE = ".building-"
_DAY = 86_400
_DEFAULT = Preprocess()


@dataclass(frozen=True, eq=False)
class _Store:
    """A complete cache: its arrays, and for each fingerprint its row and its problems."""

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8] | None
    has_mask: NDArray[np.bool_]
    place: dict[str, int]
    problems: dict[str, list[Problem]]


def cache_folder() -> Path:
    """Return $DIASCOPE_CACHE, else $XDG_CACHE_HOME/diascope, else ~/.cache/diascope."""
    if os.environ.get("DIASCOPE_CACHE"):
        return Path(os.environ["DIASCOPE_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diascope"


def load_pixels(
    dataset: Dataset,
    size: int,
    preprocess: Preprocess = _DEFAULT,
    cache: Path | None = None,
    progress: Progress | None = None,
    skip_unreadable: bool = False,
) -> Pixels:
    """Return the pixels of `dataset` at `size` x `size`, decoded at most once.

    `progress(done, total)` is called while images are decoded. Images that `verify` would
    list raise a `UserError`, or with `skip_unreadable` are left out and listed in `.skipped`.
    """
    if not 1 <= size <= 8192:
        raise UserError(f"size {size}: give the height and width of the images, 1 to 8192 pixels")
    folder = Path(cache) if cache is not None else cache_folder()
    if not len(dataset):
        empty = np.zeros((0, size, size, preprocess.channels), np.uint8)
        return Pixels(dataset, empty, None, np.zeros(0, np.bool_))
    declared = getattr(dataset.reader, "size", None)  # a wrongly sized image is a problem
    depends = {
        "format": FORMAT,
        "dataset": dataset.name,
        "declared": declared,
        "size": size,
        **preprocess.model_dump(),
    }
    prefix, prints = _digest(json.dumps(depends, sort_keys=True)), _fingerprints(dataset)
    target = folder / f"{prefix}-{_digest(*prints)}"
    store = _find(target, dataset, prints)
    if store is None:
        store = _build(target, dataset, prints, size, preprocess, progress, skip_unreadable)
    problems = {row: store.problems[key] for row, key in enumerate(prints) if key in store.problems}
    for row in np.flatnonzero(dataset.labels < 0).tolist():
        problems[row] = [label_problem(dataset, row), *problems.get(row, [])]
    found = tuple(problem for row in sorted(problems) for problem in problems[row])
    if problems and (not skip_unreadable or len(problems) == len(dataset)):
        raise refusal(dataset, found, len(problems))
    good = np.array([row for row in range(len(dataset)) if row not in problems], np.int64)
    index = np.array([store.place[prints[row]] for row in good], np.int64)
    masks = None if store.masks is None else Rows(store.masks, index)
    part = dataset.take(good) if problems else dataset
    return Pixels(part, Rows(store.images, index), masks, store.has_mask[index], found)


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=12).hexdigest()


def _fingerprints(dataset: Dataset) -> list[str]:
    """Return what the pixels of each row depend on, as one short text a row."""
    stamp = dataset.reader.stamp
    return [
        _digest(path, stamp(path), mask, stamp(mask) if mask else "", *([boxes] if boxes else []))
        for path, mask, boxes in dataset.entries
    ]


def _find(target: Path, dataset: Dataset, prints: list[str]) -> _Store | None:
    """Return a complete cache that serves `dataset`, at `target` or of a larger dataset."""
    prefix = target.name.partition("-")[0]
    others = sorted(target.parent.glob(f"{prefix}-*")) if target.parent.is_dir() else []
    stores = (_open(folder) for folder in [target, *others])
    return next((store for store in stores if store and _serves(store, dataset, prints)), None)


def _serves(store: _Store, dataset: Dataset, prints: list[str]) -> bool:
    """Return whether `store` has every row, and its problems are problems still."""
    if any(key not in store.place for key in prints):
        return False
    bad = [row for row, key in enumerate(prints) if key in store.problems]
    return all(read_row(dataset, row).problems for row in bad)


def _open(folder: Path) -> _Store | None:
    """Return the cache in `folder`; None where there is none, or a damaged one."""
    try:
        index = json.loads((folder / "index.json").read_text())
        images = np.load(folder / "images.npy", mmap_mode="r")
        masks = np.load(folder / "masks.npy", mmap_mode="r") if index["masks"] else None
        has_mask = np.load(folder / "has_mask.npy")
        place = {key: row for row, key in enumerate(index["rows"])}
        problems = {key: [Problem(*each) for each in p] for key, p in index["problems"].items()}
        return _Store(images, masks, has_mask, place, problems)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _build(
    target: Path,
    dataset: Dataset,
    prints: list[str],
    size: int,
    preprocess: Preprocess,
    progress: Progress | None,
    keep_problems: bool,
) -> _Store:
    """Return a new cache, put at `target`; one with problems is put there only if asked to."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        aside = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=target.parent))
        try:
            problems = _decode(aside, dataset, prints, size, preprocess, progress)
            if problems and not keep_problems:
                store = _open(aside)
                assert store is not None
                return store
            _publish(aside, target, dataset, prints)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        what = error.strerror or str(error)
        raise UserError(
            f"{target.parent}: the pixel cache cannot be written ({what}): free some space or "
            "name another folder in $DIASCOPE_CACHE"
        ) from None
    store = _open(target)
    assert store is not None
    return store


def _decode(
    folder: Path,
    dataset: Dataset,
    prints: list[str],
    size: int,
    preprocess: Preprocess,
    progress: Progress | None,
) -> bool:
    """Decode every row into `folder`; return whether any has a problem."""
    count = len(dataset)
    any_mask = any(mask or boxes for _, mask, boxes in dataset.entries)
    images = _allocate(folder / "images.npy", (count, size, size, preprocess.channels))
    masks = _allocate(folder / "masks.npy", (count, size, size)) if any_mask else None
    has_mask = np.zeros(count, np.bool_)

    def decode(number: int) -> tuple[Problem, ...]:
        row = read_row(dataset, number)
        if row.image is not None and not row.problems:
            images[number] = preprocess.image(row.image, size)
            if row.mask is not None and masks is not None:
                masks[number] = preprocess.mask(row.mask, size)
                has_mask[number] = True
        return row.problems

    found = in_threads(decode, count, progress)
    problems = {key: [(p.path, p.reason) for p in f] for key, f in zip(prints, found, strict=True)}
    problems = {key: each for key, each in problems.items() if each}
    for array in (images, masks):
        if array is not None:
            array.flush()
    np.save(folder / "has_mask.npy", has_mask)
    index = {"rows": prints, "problems": problems, "masks": any_mask}
    (folder / "index.json").write_text(json.dumps(index))
    for part in folder.iterdir():
        with part.open("rb") as file:
            os.fsync(file.fileno())
    return bool(problems)


def _allocate(path: Path, shape: tuple[int, ...]) -> np.memmap[tuple[int, ...], np.dtype[np.uint8]]:
    """Return a new mapped array of zeros; its room on the disk is taken at once."""
    array = open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, max(path.stat().st_size, 1))
    return array


def _publish(aside: Path, target: Path, dataset: Dataset, prints: list[str]) -> None:
    """Rename `aside` to `target`, unless another builder has put a cache there that serves."""
    aside.chmod(0o755)
    try:
        aside.rename(target)
    except OSError:
        there = _open(target)
        if there is not None and _serves(there, dataset, prints):
            return
        if not target.exists():
            raise
        outdated = Path(tempfile.mkdtemp(prefix=_ASIDE, dir=target.parent))
        target.rename(outdated / "outdated")
        shutil.rmtree(outdated, ignore_errors=True)
        aside.rename(target)


def _sweep(folder: Path) -> None:
    """Remove what builders that were killed more than a day ago left behind."""
    for left in folder.glob(f"{_ASIDE}*"):
        with contextlib.suppress(OSError):
            if time.time() - left.stat().st_mtime > _DAY:
                shutil.rmtree(left, ignore_errors=True)
