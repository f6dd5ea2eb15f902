"""APTOS 2019 Blindness Detection (Kaggle): fundus photographs of Aravind Eye Hospital, graded.

3,662 training images graded in `train.csv` (id_code, diagnosis), `train_images/*.png`, also as
`train_images.zip`. The grades of the 1,928 test images (`test.csv`, `test_images`) were never
published, so they are not read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from diascope.data.dataset import Dataset
from diascope.data.downloads import folder_of, images_by_name
from diascope.data.fundus import Task, graded
from diascope.data.named import DATASETS
from diascope.data.packed import place_of, require, table_of
from diascope.data.readers import FileReader, parse_size
from diascope.errors import UserError


@DATASETS.register("aptos2019")
def open_aptos2019(
    root: Path | None, *, task: Task = "referable", image_size: str = "any"
) -> Dataset:
    """Return the graded training images in the folder `root`.

    `task` and the classes are those of `eyepacs`, so that a model of one is tested on the other.
    The patients are not published: every image is a group of its own, though some show one eye
    twice. Further column: `grade`. `image_size` is "WxH" or "any". Raises `UserError` where the
    table or the images are missing.
    """
    root = folder_of(root, "aptos2019")
    found = table_of(root, "train.csv")
    if found is None:
        raise UserError(f"{root}: no train.csv: not a download of APTOS 2019")
    file, table = found
    require(table, ("id_code", "diagnosis"), file)
    images = images_by_name(root, re.compile(r"train_images(\.zip)?"))
    if not images:
        raise UserError(f"{root}: no images in train_images or train_images.zip")
    before, suffix = place_of(images)
    labels, classes = graded(table["diagnosis"].tolist(), task)
    columns: dict[str, Sequence[str] | pd.Series] = {
        "path": [images.get(name, f"{before}{name}{suffix}") for name in table["id_code"]],
        "label": labels,
        "grade": table["diagnosis"],
    }
    reader = FileReader(root, parse_size(image_size, "aptos2019"))
    return Dataset.of("aptos2019", columns, classes, reader)
