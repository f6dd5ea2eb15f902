"""Decoded pixels, kept on disk at the working size.

A cache is one folder, named by a hash of all that its pixels depend on: the rows' paths and
stamps, the preprocessing, the size, the format. It is built aside and renamed into place, so
that it is complete or absent. Of two builders of the same the second waits for the first; a
builder that was stopped leaves what it has to the next. A dataset whose rows all lie in a cache
that is there already is served from it, and rows that lie in others are copied from there.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from diascope.data.building import Task, Unlockable, build, claimed, finish
from diascope.data.dataset import Dataset
from diascope.data.pixels import Pixels, Rows
from diascope.data.preprocess import Preprocess
from diascope.data.stamps import stamps
from diascope.data.store import (
    ABOUT,
    FORMAT,
    LOCK,
    NOTES,
    PROBLEM,
    ROW,
    Images,
    Masks,
    Shape,
    Store,
)
from diascope.data.verify import Problem, Progress, label_problem, read_row, refusal
from diascope.errors import UserError

ASIDE = ".building-"
_KEPT = 7 * 86_400  # seconds for which what a stopped builder left is kept
_DEFAULT = Preprocess()
_WAIT = 0.2


def cache_folder() -> Path:
    """Return $DIASCOPE_CACHE, else $XDG_CACHE_HOME/diascope, else ~/.cache/diascope.

    For a user without a home it is a folder that nobody can write.
    """
    if os.environ.get("DIASCOPE_CACHE"):
        return Path(os.environ["DIASCOPE_CACHE"])
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diascope"
    except RuntimeError:
        return Path(os.devnull) / "diascope"


def load_pixels(
    dataset: Dataset,
    size: int,
    preprocess: Preprocess = _DEFAULT,
    cache: Path | None = None,
    progress: Progress | None = None,
    skip_unreadable: bool = False,
    spare: Path | None = None,
) -> Pixels:
    """Return the pixels of `dataset` at `size` x `size`, decoded at most once.

    `progress(done, total)` is called while images are decoded. Images that `verify` would
    list raise a `UserError`, or with `skip_unreadable` are left out and listed in `.skipped`.
    A disk without room for them raises one, too, before anything is decoded. spare: the folder
    for pixels that are not in the cache, where the cache cannot be written.
    """
    if not 1 <= size <= 8192:
        raise UserError(f"size {size}: give the height and width of the images, 1 to 8192 pixels")
    if not len(dataset):
        empty = np.zeros((0, size, size, preprocess.channels), np.uint8)
        return Pixels(dataset, empty, None, np.zeros(0, np.bool_))
    task = _task(dataset, size, preprocess)
    folder = Path(cache) if cache is not None else cache_folder()
    target = folder / f"{_depends(task)}-{_digest(task.prints.tobytes()).hex()}"
    store, problems = _find(target, task), dict[int, tuple[Problem, ...]]()
    if store is None and spare is not None and not _writable(folder):
        target = spare / target.name
        store = _find(target, task)
    if store is None:
        store, problems = _build(target, task, progress, skip_unreadable)
    rows = np.full(len(dataset), -1) if store is None else store.locate(task.prints)
    if store is not None:
        for row in np.flatnonzero(store.table["kind"][rows] == PROBLEM).tolist():
            problems[row] = tuple(Problem(*each) for each in store.problems[int(rows[row])])
    for row in np.flatnonzero(dataset.labels < 0).tolist():
        problems[row] = (label_problem(dataset, row), *problems.get(row, ()))
    found = tuple(problem for row in sorted(problems) for problem in problems[row])
    if problems and (not skip_unreadable or len(problems) == len(dataset)):
        raise refusal(dataset, found, len(problems))
    assert store is not None
    with contextlib.suppress(OSError):  # says when it was last used
        os.utime(store.folder / ABOUT)
    good = np.array([row for row in range(len(dataset)) if row not in problems], np.int64)
    index = rows[good]
    masks = Rows(Masks(store), index) if len(store.masks) else None
    part = dataset.take(good) if problems else dataset
    return Pixels(part, Rows(Images(store), index), masks, store.has_mask(index), found)


def _writable(folder: Path) -> bool:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _task(dataset: Dataset, size: int, preprocess: Preprocess) -> Task:
    about = {
        "dataset": dataset.name,
        "declared": getattr(dataset.reader, "size", None),  # a wrongly sized image is a problem
        "preprocess": preprocess.model_dump(mode="json"),
    }
    shape = Shape(size, preprocess.channels)
    return Task(dataset, _fingerprints(dataset), shape, preprocess, about)


def _depends(task: Task) -> str:
    """Return the name of what the pixels of all rows depend on."""
    depends = {"format": FORMAT, "size": task.shape.size, **task.about}
    return _digest(json.dumps(depends, sort_keys=True).encode()).hex()


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=12).digest()


def _fingerprints(dataset: Dataset) -> NDArray[np.bytes_]:
    """Return what the pixels of each row depend on, in 12 bytes a row (N,)."""
    paths, masks, boxes = zip(*dataset.entries, strict=True)
    of_masks = iter(stamps(dataset.reader, [mask for mask in masks if mask]))
    of_paths = stamps(dataset.reader, paths)
    prints = bytearray()
    for path, stamp, mask, box in zip(paths, of_paths, masks, boxes, strict=True):
        parts = (path, stamp, mask, next(of_masks) if mask else "", *([box] if box else []))
        prints += _digest("\n".join(parts).encode())
    return np.frombuffer(bytes(prints), "S12")


def _find(target: Path, task: Task) -> Store | None:
    """Return a complete cache that serves `task`, at `target` or of a larger dataset."""
    others = (folder for folder in _alike(target) if not folder.name.startswith("."))
    stores = (Store.open(folder) for folder in [target, *others])
    return next((store for store in stores if store and _serves(store, task)), None)


def _alike(target: Path) -> list[Path]:
    """Return the other caches, complete or not, whose rows are prepared as those of `target`."""
    if not target.parent.is_dir():
        return []
    prefix = target.name.partition("-")[0]
    found = [*target.parent.glob(f"{prefix}-*"), *target.parent.glob(f"{ASIDE}{prefix}-*")]
    return sorted(folder for folder in found if folder != target)


def _serves(store: Store, task: Task) -> bool:
    """Return whether `store` has every row, and its problems are problems still."""
    if len(store.table) < len(task.prints):
        return False
    rows = store.locate(task.prints)
    if (rows < 0).any():
        return False
    bad = np.flatnonzero(store.table["kind"][rows] == PROBLEM)
    return all(read_row(task.dataset, row).problems for row in bad.tolist())


def _build(
    target: Path, task: Task, progress: Progress | None, keep_problems: bool
) -> tuple[Store | None, dict[int, tuple[Problem, ...]]]:
    """Return a new cache, put at `target`; where rows have problems, only if asked to.

    Otherwise what could be decoded stays where the next builder finds it.
    """
    aside = target.with_name(ASIDE + target.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target.parent)
        while True:
            try:
                with claimed(aside) as mine:
                    if mine:
                        return _build_aside(aside, target, task, progress, keep_problems)
            except Unlockable:  # a folder that is nobody else's, to which no one returns
                shutil.rmtree(aside, ignore_errors=True)
                own = Path(tempfile.mkdtemp(prefix=f"{aside.name}-", dir=target.parent))
                return _build_aside(own, target, task, progress, keep_problems)
            if progress is not None:
                progress(_noted(aside), len(task.prints))
            time.sleep(_WAIT)
    except OSError as error:
        what = error.strerror or str(error)
        raise UserError(
            f"{target.parent}: the pixel cache cannot be written ({what}): free some space or "
            "name another folder in $DIASCOPE_CACHE; what is decoded is kept for the next start"
        ) from None


def _build_aside(
    aside: Path, target: Path, task: Task, progress: Progress | None, keep_problems: bool
) -> tuple[Store | None, dict[int, tuple[Problem, ...]]]:
    """Build in the folder `aside`, which is this builder's alone; see `_build`."""
    if (there := _find(target, task)) is not None:  # made while this builder waited
        shutil.rmtree(aside, ignore_errors=True)
        return there, {}
    found = [_open(folder, task.shape) for folder in (target, *_alike(target))]
    sources = [store for store in found if store and (store.locate(task.prints) >= 0).any()]
    try:
        problems = build(aside, task, sources, progress)
    finally:
        if not _noted(aside):
            shutil.rmtree(aside, ignore_errors=True)
    if problems and (not keep_problems or len(problems) == len(task.prints)):
        return None, problems
    finish(aside, task, problems)
    _publish(aside, target)
    store = Store.open(target)
    assert store is not None
    _remove_superseded(target, store)
    return store, {}


def _open(folder: Path, shape: Shape) -> Store | None:
    return Store.open(folder) or Store.unfinished(folder, shape)


def _noted(aside: Path) -> int:
    """Return how many rows the builder of `aside` has noted."""
    try:
        return (aside / NOTES).stat().st_size // ROW.itemsize
    except OSError:
        return 0


def _publish(aside: Path, target: Path) -> None:
    """Rename `aside` to `target`; what lies there is damaged, or has problems that went away."""
    if target.exists():
        outdated = Path(tempfile.mkdtemp(prefix=ASIDE, dir=target.parent))
        target.rename(outdated / "outdated")
        shutil.rmtree(outdated, ignore_errors=True)
    aside.rename(target)
    for name in (NOTES, LOCK):
        (target / name).unlink(missing_ok=True)


def _remove_superseded(target: Path, store: Store) -> None:
    """Remove what stopped builders left of rows that `store` now has."""
    for folder in _alike(target):
        left = Store.unfinished(folder, store.shape) if folder.name.startswith(ASIDE) else None
        if left is not None and (store.locate(left.table["print"]) >= 0).all():
            _remove(folder)


def _sweep(folder: Path) -> None:
    """Remove what builders that were stopped a week ago left behind."""
    for left in folder.glob(f"{ASIDE}*"):
        newest = max((_modified(file) for file in [left, *left.glob("*")]), default=0.0)
        if time.time() - newest > _KEPT:
            _remove(left)


def _remove(left: Path) -> bool:
    """Remove an unfinished cache unless its builder lives; return whether it is gone."""
    try:
        with claimed(left) as mine:
            if mine:
                shutil.rmtree(left, ignore_errors=True)
    except OSError:
        return False
    return not left.exists()


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
