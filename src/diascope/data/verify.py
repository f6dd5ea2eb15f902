"""Finding every image that cannot be used, in one pass."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from diascope.data.boxes import box_region
from diascope.data.dataset import Dataset, ReadError
from diascope.errors import UserError, nearest

Progress = Callable[[int, int], object]
T = TypeVar("T")
BLOCK = 32


@dataclass(frozen=True)
class Problem:
    """A file that cannot be used: its `path`, and the `reason`."""

    path: str
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclass(frozen=True, eq=False)
class Row:
    """One row as read: the image (H, W, C), its region (H, W), and what is wrong with them."""

    image: NDArray[np.uint8] | None
    mask: NDArray[np.bool_] | None
    problems: tuple[Problem, ...]


def verify(
    dataset: Dataset, progress: Progress | None = None, threads: int | None = None
) -> list[Problem]:
    """Return every problem of `dataset`, in the order of its rows.

    An image or mask that is missing, unreadable, truncated, too large or of another size than
    declared; a mask of another size than its image; boxes that are none, or lie outside their
    image; a label that is no class.
    """

    def check(row: int) -> list[Problem]:
        labels = [label_problem(dataset, row)] if dataset.labels[row] < 0 else []
        return [*labels, *read_row(dataset, row).problems]

    found = in_threads(check, len(dataset), progress, threads)
    return [problem for problems in found for problem in problems]


def refusal(dataset: Dataset, problems: Sequence[Problem], images: int) -> UserError:
    """Return the error that says how many `images` cannot be used, shows some, and helps."""
    shown = "; ".join(str(problem) for problem in problems[:3])
    rest = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
    return UserError(
        f"{dataset.name}: {images} of {len(dataset)} images cannot be used: {shown}{rest}. Mend "
        "them ('diascope data verify' lists all) or skip them with skip_unreadable=true"
    )


def read_row(dataset: Dataset, row: int) -> Row:
    """Return the pixels of row number `row`; its problems are listed, none is raised.

    The region is the mask; without one, the union of the boxes; without those, None.
    """
    path, mask_path, boxes = dataset.entries[row]
    problems = []
    image, mask = None, None
    try:
        image = dataset.reader.image(path)
    except ReadError as error:
        problems.append(Problem(error.path, error.reason))
    try:
        if mask_path:
            mask = dataset.reader.mask(mask_path)
        elif boxes and image is not None:
            height, width = image.shape[:2]
            mask = box_region(boxes, height, width, path)
    except ReadError as error:
        problems.append(Problem(error.path, error.reason))
    if image is not None and mask is not None and image.shape[:2] != mask.shape:
        (h, w), (mh, mw) = image.shape[:2], mask.shape
        problems.append(Problem(mask_path, f"the mask is {mw}x{mh} pixels, its image {w}x{h}"))
    return Row(image, mask, tuple(problems))


def label_problem(dataset: Dataset, row: int) -> Problem:
    """Return what is wrong with the label of row number `row`, which is no class."""
    path, label = (str(dataset.table[column].iloc[row]) for column in ("path", "label"))
    known = nearest(label, dataset.classes)
    return Problem(path, f"unknown label '{label}': {known}" if label else "has no label")


def in_threads(
    function: Callable[[int], T],
    count: int,
    progress: Progress | None = None,
    threads: int | None = None,
) -> list[T]:
    """Return `function(row)` of `count` rows, in order; calls `progress(done, total)`."""
    results: list[T] = []
    with closing(stream(function, count, threads)) as blocks:
        for block in blocks:
            results += block
            if progress is not None:
                progress(len(results), count)
    return results


def stream(
    function: Callable[[int], T], count: int, threads: int | None = None, block: int = BLOCK
) -> Generator[list[T], None, None]:
    """Yield `function(row)` of `count` rows, in order and in blocks, worked out in threads.

    The threads are at most three blocks each ahead of whoever takes the results, so that these
    take no more memory than that however slowly they are taken.
    """
    threads = threads or min(_cores(), 16)

    def work(start: int) -> list[T]:
        return [function(row) for row in range(start, min(start + block, count))]

    with ThreadPoolExecutor(threads, "diascope-read") as pool:
        ahead = deque[Future[list[T]]]()
        try:
            for start in range(0, count, block):
                ahead.append(pool.submit(work, start))
                if len(ahead) == 3 * threads:
                    yield ahead.popleft().result()
            while ahead:
                yield ahead.popleft().result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
