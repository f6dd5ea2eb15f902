"""Looking at every image of a dataset once: its hash, its thumbnail, its statistics."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from diascope.data import Dataset, Pixels
from diascope.data.readers import FileReader, archive_of
from diascope.data.verify import Problem, Progress, in_threads, label_problem, read_row

SIDE = 64  # of a thumbnail
LEVELS = 16  # bins of the histogram
PERCENTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
STATISTICS = 2 + len(PERCENTILES) + 3 + LEVELS + 6
IN_MEMORY = 1 << 28  # bytes of thumbnails; more of them go to a temporary file
OBLONG = 1.05  # an image this much longer than wide has a second thumbnail, of its centre


@dataclass(frozen=True, eq=False)
class Looked:
    """What was seen of each of the N images of `dataset`.

    read (N,): whether it could be read. contents: a hash of its decoded pixels and shape, the same
    whatever file holds them, "" where unread. thumbnails (N, 64, 64): grey, the whole image made
    square. centres (N, 64, 64): the same of the largest square about the centre, where `oblong`
    (N,). statistics (N, 34): of the grey values and colours (`statistics_of`). sizes (N, 3):
    height, width and channels as stored. stored (N,): bytes of the file, NaN where there is none.
    formats: the suffix of the file. regions: how many images have a mask or boxes.
    """

    dataset: Dataset
    read: NDArray[np.bool_]
    contents: list[str]
    thumbnails: NDArray[np.uint8]
    centres: NDArray[np.uint8]
    oblong: NDArray[np.bool_]
    statistics: NDArray[np.float32]
    sizes: NDArray[np.int64]
    stored: NDArray[np.float64]
    formats: list[str]
    problems: tuple[Problem, ...] = ()

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def regions(self) -> int:
        """How many images have a mask or boxes."""
        return sum(bool(mask or boxes) for _, mask, boxes in self.dataset.entries)


def look(dataset: Dataset, progress: Progress | None = None, threads: int | None = None) -> Looked:
    """Read every image and its region once, in threads; what cannot be used is in `problems`.

    An image is in memory only while it is looked at: what stays is about 4.5 kB of each (twice
    that where it is not square), and thumbnails beyond 256 MiB lie in a temporary file.
    """
    looked = _blank(dataset)

    def see(row: int) -> list[Problem]:
        found = read_row(dataset, row)
        if found.image is not None:
            _note(looked, row, found.image)
        path = dataset.entries[row][0]
        looked.stored[row] = stored_bytes(dataset, path)
        labels = [label_problem(dataset, row)] if dataset.labels[row] < 0 else []
        return [*labels, *found.problems]

    found = in_threads(see, len(dataset), progress, threads)
    problems = tuple(problem for each in found for problem in each)
    return Looked(**{**vars(looked), "problems": problems})


def look_at_pixels(pixels: Pixels) -> Looked:
    """Look at images that are decoded already, at the working size; nothing is known of files."""
    looked = _blank(pixels.dataset)

    def see(row: int) -> None:
        _note(looked, row, np.asarray(pixels.images[np.array([row])])[0])

    in_threads(see, len(pixels))
    return Looked(**{**vars(looked), "formats": [""] * len(pixels)})


def _blank(dataset: Dataset) -> Looked:
    count = len(dataset)
    return Looked(
        dataset,
        read=np.zeros(count, np.bool_),
        contents=[""] * count,
        thumbnails=_room(count),
        centres=_room(count),
        oblong=np.zeros(count, np.bool_),
        statistics=np.zeros((count, STATISTICS), np.float32),
        sizes=np.zeros((count, 3), np.int64),
        stored=np.full(count, np.nan),
        formats=[PurePosixPath(path.lower()).suffix for path, _, _ in dataset.entries],
    )


def _room(count: int) -> NDArray[np.uint8]:
    """Return zeros (count, 64, 64), which take room only once they are written."""
    shape = (count, SIDE, SIDE)
    if count * SIDE * SIDE <= IN_MEMORY:
        return np.zeros(shape, np.uint8)
    with tempfile.TemporaryFile() as file:  # stays as long as it is mapped
        return np.memmap(file, np.uint8, "w+", shape=shape)


def _note(looked: Looked, row: int, image: NDArray[np.uint8]) -> None:
    """Write what is seen of `image` (H, W, C) into row number `row`."""
    height, width, channels = image.shape
    image = _plain(image)
    looked.contents[row] = content_of(image)
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    grey = picture.convert("L")
    looked.thumbnails[row] = _thumbnail(grey, (0, 0, width, height))
    if max(height, width) > OBLONG * min(height, width):
        side = min(height, width)
        left, top = (width - side) / 2, (height - side) / 2
        looked.centres[row] = _thumbnail(grey, (left, top, left + side, top + side))
        looked.oblong[row] = True
    looked.statistics[row] = statistics_of(grey.histogram(), picture.histogram())
    looked.sizes[row] = height, width, channels
    looked.read[row] = True


def _plain(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return `image` as contiguous memory, with one channel where its three are equal."""
    if image.shape[2] == 3:
        first, second, third = (image[..., k] for k in range(3))
        if np.array_equal(first, second) and np.array_equal(first, third):
            image = image[..., :1]
    return np.ascontiguousarray(image)


def content_of(image: NDArray[np.uint8]) -> str:
    """Return 32 hexadecimal digits of the pixels and shape of `image` (H, W, C)."""
    digest = hashlib.blake2b(repr(image.shape).encode(), digest_size=16)
    digest.update(image.data)
    return digest.hexdigest()


def _thumbnail(grey: Image.Image, box: tuple[float, float, float, float]) -> NDArray[np.uint8]:
    small = grey.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box, reducing_gap=3.0)
    return np.asarray(small)


def statistics_of(grey: list[int], colour: list[int]) -> NDArray[np.float32]:
    """Return (34,) numbers of an image from the counts of its grey and its channels' values.

    Mean and standard deviation, percentiles, shares of black (to 3) and white (from 252), the
    share of the 256 values that occur, a histogram of 16 bins, and each channel's mean and
    standard deviation. All but the last three kinds are in grey values over 255.
    """
    counts = np.asarray(grey, np.float64) / max(sum(grey), 1)  # (256,)
    values = np.arange(256) / 255
    mean, deviation = _moments(counts, values)
    places = np.searchsorted(np.cumsum(counts), np.array(PERCENTILES)).clip(0, 255)
    shares = [counts[:4].sum(), counts[252:].sum(), (counts > 0).mean()]
    channels = np.asarray(colour, np.float64).reshape(-1, 256)
    channels = np.broadcast_to(channels / max(channels[0].sum(), 1), (3, 256))
    moments = [value for channel in channels for value in _moments(channel, values)]
    bins = counts.reshape(LEVELS, -1).sum(1)
    found = [mean, deviation, *values[places], *shares, *bins, *moments]
    return np.asarray(found, np.float32)


def _moments(shares: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[float, float]:
    mean = float(shares @ values)
    return mean, float(shares @ (values - mean) ** 2) ** 0.5


def stored_bytes(dataset: Dataset, path: str) -> float:
    """Return the size of an image's file or ZIP entry in bytes; NaN where it lies in none."""
    if not isinstance(dataset.reader, FileReader):
        return float("nan")
    archive, bang, entry = path.partition("!")
    try:
        if bang:
            return float(archive_of(dataset.reader.root / archive).getinfo(entry).file_size)
        return float((dataset.reader.root / path).stat().st_size)
    except (OSError, KeyError, ValueError):
        return float("nan")
