"""Building a pixel cache by streaming: in bounded memory, and from where the last builder stopped.

Images are decoded in threads, a few blocks ahead of the one that writes. Rows are appended to the
files, and noted once the disk has them, every second: a builder that is killed loses what came
after, and the next one appends to the rest. A folder is one builder's as long as it lives, by a
lock that the system takes back.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from diascope.data.dataset import Dataset
from diascope.data.preprocess import Preprocess
from diascope.data.store import (
    ABOUT,
    COLOUR,
    FILES,
    FORMAT,
    GREY,
    LOCK,
    MASKS,
    NOTES,
    PROBLEM,
    ROW,
    TABLE,
    Shape,
    Store,
    noted,
)
from diascope.data.verify import Problem, Progress, read_row, stream
from diascope.errors import UserError

NOTE_EVERY = 1.0  # seconds
_BLOCK_BYTES = 4 << 20
_SAMPLE = 16


@dataclass(frozen=True)
class Task:
    """What is to be built: the images of `dataset`, whose prints (N,) are given, at one shape."""

    dataset: Dataset
    prints: NDArray[np.bytes_]
    shape: Shape
    preprocess: Preprocess
    about: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Ready:
    """One row as it will lie in the cache; without an image it has problems."""

    image: NDArray[np.uint8] | None
    region: NDArray[np.uint8] | None
    content: bytes
    problems: tuple[Problem, ...] = ()


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[bool]:
    """Yield whether `folder`, made where it is absent, is this builder's until the block ends.

    Raises `Unlockable` where the disk knows no locks.
    """
    folder.mkdir(exist_ok=True)
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except FileNotFoundError:  # it was finished, or removed, just now
        yield False
        return
    try:
        yield _locked(handle) and _is(folder / LOCK, handle)
    finally:
        os.close(handle)


class Unlockable(OSError):
    """The disk knows no locks, so that a folder cannot be one builder's."""


def _locked(handle: int) -> bool:
    import fcntl  # there is none on Windows

    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise Unlockable(error.errno, error.strerror) from None
    return True


def _is(path: Path, handle: int) -> bool:
    """Return whether `handle` is the file that now has this name."""
    with contextlib.suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(handle))
    return False


def build(
    folder: Path, task: Task, sources: Sequence[Store], progress: Progress | None
) -> dict[int, tuple[Problem, ...]]:
    """Put every row of `task` into `folder`; return the problems of those that have some.

    Rows noted in `folder` stay, rows that `sources` hold are copied, the rest is decoded. Raises
    `UserError` where the disk has not the room, before anything is written.
    """
    writer = _Writer(folder, task.shape)
    try:
        known = np.zeros(len(task.prints), np.bool_)
        if len(writer.rows):
            known = np.isin(task.prints, writer.rows["print"])
        todo = np.flatnonzero(~known)
        _check_room(folder, task, todo)
        problems: dict[int, tuple[Problem, ...]] = {}
        kept = done = len(task.prints) - len(todo)
        prepare = _Preparing(task, sources)
        width = task.shape.image_bytes(COLOUR)
        block = max(1, min(32, _BLOCK_BYTES // width))
        with contextlib.closing(
            stream(lambda k: prepare(int(todo[k])), len(todo), block=block)
        ) as parts:
            for part in parts:
                for ready in part:
                    row = int(todo[done - kept])
                    if ready.image is None:
                        problems[row] = ready.problems
                    else:
                        writer.add(task.prints[row], ready)
                    done += 1
                writer.note_now_and_then()
                if progress is not None:
                    progress(done, len(task.prints))
        writer.note()
    finally:
        writer.close()
    return problems


def finish(folder: Path, task: Task, problems: dict[int, tuple[Problem, ...]]) -> None:
    """Write the table of all that `folder` holds, after which it is a complete cache."""
    bad = np.zeros(len(problems), ROW)
    bad["print"], bad["kind"] = task.prints[list(problems)], PROBLEM
    rows = np.concatenate([noted(folder), bad])
    _, last = np.unique(rows["print"][::-1], return_index=True)
    table = rows[::-1][last]  # sorted by print, each once
    at = np.searchsorted(table["print"], task.prints[list(problems)])
    about = {
        "format": FORMAT,
        **task.about,
        "size": task.shape.size,
        "channels": task.shape.channels,
        "images": len(table),
        "built": datetime.now(UTC).isoformat(timespec="seconds"),
        "problems": {
            str(number): [(p.path, p.reason) for p in found]
            for number, found in zip(at.tolist(), problems.values(), strict=True)
        },
    }
    np.save(folder / TABLE, table)
    (folder / ABOUT).write_text(json.dumps(about))
    for name in (TABLE, ABOUT):
        with (folder / name).open("rb") as file:
            os.fsync(file.fileno())


class _Preparing:
    """Turns the number of a row into what will lie in the cache; called from many threads."""

    def __init__(self, task: Task, sources: Sequence[Store]) -> None:
        self.task = task
        self.sources = [(store, store.locate(task.prints)) for store in sources]

    def __call__(self, row: int) -> Ready:
        for store, places in self.sources:
            at = places[row]
            if at >= 0 and store.table["kind"][at] != PROBLEM:
                with contextlib.suppress(UserError, OSError):
                    return Ready(*store.read(at), store.table["content"][at].tobytes())
        found = read_row(self.task.dataset, row)
        if found.image is None or found.problems:
            return Ready(None, None, b"", found.problems)
        preprocess, size = self.task.preprocess, self.task.shape.size
        window = preprocess.window(found.image)
        image = preprocess.image(found.image, size, window)
        mask = None if found.mask is None else preprocess.mask(found.mask, size, window)
        region = None if mask is None else np.packbits(mask)
        content = hashlib.blake2b(np.ascontiguousarray(image).data, digest_size=8).digest()
        return Ready(_narrowed(image), region, content)


def _narrowed(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `image` (S, S, 1 or 3) with one channel where all are equal; contiguous."""
    first = image[..., :1]
    if image.shape[2] == 1 or image.strides[2] == 0 or (image == first).all():
        return np.ascontiguousarray(first)
    return np.ascontiguousarray(image)


class _Writer:
    """Appends rows to the files of a folder, and notes them when the disk has them."""

    def __init__(self, folder: Path, shape: Shape) -> None:
        rows = noted(folder) if (folder / NOTES).exists() else np.zeros(0, ROW)
        widths = [shape.image_bytes(GREY), shape.image_bytes(COLOUR), shape.mask_bytes]
        counts = [int((rows["kind"] == kind).sum()) for kind in (GREY, COLOUR)]
        counts.append(int((rows["mask"] > 0).sum()))
        paths = [folder / name for name in (*FILES, MASKS)]
        whole = all(
            path.exists() and path.stat().st_size >= count * width
            for path, count, width in zip(paths, counts, widths, strict=True)
        )
        self.rows, self.counts = (rows, counts) if whole else (np.zeros(0, ROW), [0, 0, 0])
        self.files = [path.open("ab", buffering=0) for path in paths]
        for file, count, width in zip(self.files, self.counts, widths, strict=True):
            file.truncate(count * width)
        self.notes = (folder / NOTES).open("ab", buffering=0)
        self.notes.truncate(len(self.rows) * ROW.itemsize)
        self.waiting: list[NDArray[np.void]] = []
        self.last = time.monotonic()

    def add(self, name: bytes, ready: Ready) -> None:
        """Append one row."""
        assert ready.image is not None
        kind = GREY if ready.image.shape[2] == 1 else COLOUR
        row = np.zeros(1, ROW)
        row["print"], row["kind"], row["place"] = name, kind, self.counts[kind]
        row["content"] = np.void(ready.content)
        _write(self.files[kind], ready.image.reshape(-1).data)
        if ready.region is not None:
            _write(self.files[2], ready.region.data)
            self.counts[2] += 1
            row["mask"] = self.counts[2]
        self.counts[kind] += 1
        self.waiting.append(row)

    def note_now_and_then(self) -> None:
        """Note what was added, if the last time is a while ago."""
        if time.monotonic() - self.last >= NOTE_EVERY:
            self.note()

    def note(self) -> None:
        """Note what was added, once the disk has it."""
        for file in self.files:
            os.fsync(file.fileno())
        if self.waiting:
            _write(self.notes, memoryview(np.concatenate(self.waiting).tobytes()))
            os.fsync(self.notes.fileno())
        self.waiting.clear()
        self.last = time.monotonic()

    def close(self) -> None:
        """Close the files; after an error, note first what can be noted."""
        try:
            with contextlib.suppress(OSError):  # it is being said
                if self.waiting:
                    self.note()
        finally:
            for file in (*self.files, self.notes):
                file.close()


def _write(file: Any, content: memoryview) -> None:
    while content:
        content = content[file.write(content) :]


def _check_room(folder: Path, task: Task, todo: NDArray[np.int64]) -> None:
    """Raise `UserError` where the rows to be built do not fit on the disk.

    Whether images are grey is seen on some of them, where that decides.
    """
    free = shutil.disk_usage(folder).free
    shape, entries = task.shape, task.dataset.entries
    regions = sum(bool(entries[row][1] or entries[row][2]) for row in todo.tolist())
    rest = regions * shape.mask_bytes + 2 * len(todo) * ROW.itemsize

    def needed(kind: int) -> int:
        return len(todo) * shape.image_bytes(kind) + rest

    need = needed(COLOUR if shape.channels == 3 else GREY)
    if need > free and shape.channels == 3 and needed(GREY) <= free:
        some = todo[np.unique(np.linspace(0, len(todo) - 1, _SAMPLE).astype(np.int64))]
        images = [ready.image for ready in map(_Preparing(task, ()), some.tolist())]
        if all(image is None or image.shape[2] == 1 for image in images):
            need = needed(GREY)
    if need > free:
        raise UserError(
            f"{folder.parent}: the pixels of {len(todo):,} images at {shape.size}x{shape.size} "
            f"need {need:,} bytes, and {free:,} are free: free some space ("
            "'diascope data cache' lists the caches, with --clear removes them) or name another "
            "folder in $DIASCOPE_CACHE"
        )
