"""Images to train on: of a dataset, or the phantom's."""

from __future__ import annotations

import numpy as np

from diascope.data import Dataset, Pixels, load_pixels, open_data
from diascope.errors import UserError
from diascope.randomness import derive

CLASSES = ("mel", "nv", "bkl", "bcc")  # of HAM10000: the four with 500 images or more
NUM_CLASSES = len(CLASSES)


def training_data(data: str | None, count: int, size: int, seed: int) -> Dataset:
    """Return the dataset: `data` (HAM10000's four largest classes), or the phantom of `count`."""
    if data is None:
        return open_data(f"phantom:images={max(count, 8)},size={size},seed={seed},difficulty=0.2")
    classes = CLASSES if data.partition(":")[0] == "ham10000" else None
    return open_data(data, classes)


def training_pixels(data: str | None, count: int, size: int, seed: int) -> Pixels:
    """Return `count` images of `size` pixels, drawn by lot."""
    dataset = training_data(data, count, size, seed)
    if len(dataset) < count:
        raise UserError(f"--data {data}: has {len(dataset)} images; {count} are needed")
    if len(dataset.classes) > NUM_CLASSES:
        raise UserError(f"--data {data}: the benchmark's net has {NUM_CLASSES} classes")
    lot = np.array([derive(seed, "image", int(i)) for i in dataset.ids])
    return load_pixels(dataset.take(np.sort(np.argsort(lot)[:count])), size)


def note(data: str | None) -> str:
    """Return what the images are, for the record."""
    return f"images of {'the phantom' if data is None else data.partition(':')[0]}"
