"""Boxes that readers draw, as regions of the image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from diascope.data.dataset import ReadError
from diascope.data.readers import read_table
from diascope.errors import UserError

SUFFIXES = (".csv", ".tsv", ".parquet")
SIDES = ["x", "y", "w", "h"]


def box_region(boxes: str, height: int, width: int, path: str = "") -> NDArray[np.bool_]:
    """Return the union of boxes, as a region (height, width) of their image.

    boxes: JSON [[x, y, w, h], ...] in pixels of the image, x and y of the upper left corner,
    fractions allowed. A pixel is inside where its centre is, x <= column + 0.5 < x + w. What
    reaches beyond the image is cut off. Raises `ReadError` (of `path`) for text that is no such
    list, a box without an area, and one that covers no pixel's centre.
    """
    region = np.zeros((height, width), np.bool_)
    for box in _boxes(boxes, path):
        x, y, w, h = box
        rows = slice(_first(y, height), _first(y + h, height))
        columns = slice(_first(x, width), _first(x + w, width))
        if not region[rows, columns].size:
            raise ReadError(path, f"the box {box} covers no pixel of {width}x{height}")
        region[rows, columns] = True
    return region


def boxes_of(table: pd.DataFrame, file: Path) -> list[str]:
    """Return the boxes of each row of `table`, as JSON, from a file with a row a box.

    The file has the columns x, y, w and h (pixels of the image) and shares one column with
    `table`, the one that names the image. A row of `table` without a box gets "". Raises
    `UserError` where columns are missing, a number is none, or no box belongs to any row.
    """
    found = read_table(file)
    missing = [side for side in SIDES if side not in found]
    shared = [name for name in found if name in table and name not in SIDES]
    if missing or len(shared) != 1:
        what = f"no column '{missing[0]}'" if missing else f"shares {shared or 'no column'}"
        raise UserError(
            f"{file}: {what}: boxes need x, y, w, h and one column that the images' table has too"
        )
    try:
        numbers = found[SIDES].astype(float)
    except ValueError as error:
        raise UserError(f"{file}: a side of a box is no number ({error})") from None
    if not numbers.map(np.isfinite).all(axis=None):
        raise UserError(f"{file}: a side of a box is not finite")
    image = found[shared[0]].str.strip()
    boxes = {name: json.dumps(part.to_numpy().tolist()) for name, part in numbers.groupby(image)}
    entries = [boxes.get(name, "") for name in table[shared[0]].str.strip()]
    if not any(entries):
        raise UserError(f"{file}: none of its boxes belongs to an image: '{shared[0]}' differs")
    return entries


def _boxes(text: str, path: str) -> list[list[float]]:
    try:
        boxes = json.loads(text)
    except ValueError:
        boxes = None
    if not isinstance(boxes, list) or not boxes or not all(_is_box(box) for box in boxes):
        raise ReadError(path, f"boxes '{text[:40]}': write [[x, y, w, h], ...] in pixels")
    return boxes


def _is_box(box: Any) -> bool:
    numbers = isinstance(box, list) and len(box) == 4 and all(type(v) in (int, float) for v in box)
    return numbers and bool(np.isfinite(box).all()) and box[2] > 0 and box[3] > 0


def _first(place: float, count: int) -> int:
    """Return the first of `count` pixels whose centre is at `place` or beyond."""
    return int(np.clip(np.ceil(place - 0.5), 0, count))
