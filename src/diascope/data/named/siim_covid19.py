"""SIIM-FISABIO-RSNA COVID-19 Detection 2021: 6,334 labelled chest X-rays of 6,054 studies.

Lakhani et al. 2023, Journal of Digital Imaging 36:365 (doi:10.1007/s10278-022-00706-8). The
official download as it is unpacked: `train/<study>/<series>/<image>.dcm`,
`train_study_level.csv` (the appearance of each study) and `train_image_level.csv` (the boxes of
opacities of each image). Its `test` folder has no labels and is not read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from diascope.data.dataset import Dataset
from diascope.data.downloads import boxes_text, columns_of, folder_of, images_by_name
from diascope.data.named import DATASETS
from diascope.data.readers import FileReader
from diascope.errors import UserError

APPEARANCES = (
    "Negative for Pneumonia",
    "Typical Appearance",
    "Indeterminate Appearance",
    "Atypical Appearance",
)
COVID = ("negative", "COVID-19")
_SIDES = ("x", "y", "width", "height")
_IMAGES = re.compile(r"train(\.zip)?")


@DATASETS.register("siim_covid19")
def open_siim_covid19(
    root: Path | None, *, task: Literal["covid", "appearance", "opacity"] = "covid"
) -> Dataset:
    """Return the labelled images of the challenge in the folder `root`.

    `task` "covid" asks for any appearance of COVID-19 pneumonia (typical, indeterminate or
    atypical) against "Negative for Pneumonia"; "appearance" for the four; "opacity" whether a box
    was drawn on this image. `group` is the study: the tables name no patient. `boxes` are in
    pixels of the DICOM image. Raises `UserError` where tables or images are missing.
    """
    root = folder_of(root, "siim_covid19")
    images = images_by_name(root, _IMAGES, (".dcm",))
    if not images:
        raise UserError(f"{root}: no images: expected train/<study>/<series>/<image>.dcm")
    file = root / "train_image_level.csv"
    table = columns_of(file, ("id", "boxes", "StudyInstanceUID"))
    name = table["id"].str.removesuffix("_image")
    study = table["StudyInstanceUID"].str.strip()
    appearance = study.map(_appearances(root / "train_study_level.csv")).fillna("")
    boxes = [_boxes(text, file) for text in table["boxes"]]
    classes, label = _labels(task, appearance, boxes)
    columns: dict[str, Sequence[str] | pd.Series[str]] = {
        "path": [
            images.get(image, f"train/{of}/{image}.dcm")
            for image, of in zip(name, study, strict=True)
        ],
        "label": label,
        "group": study,
        "boxes": boxes,
        "appearance": appearance,
    }
    return Dataset.of("siim_covid19", columns, classes, FileReader(root))


def _labels(
    task: str, appearance: pd.Series, boxes: list[str]
) -> tuple[tuple[str, ...], list[str]]:
    """Return the classes, and the label of each image; "" where its study has none."""
    if task == "appearance":
        return APPEARANCES, list(appearance)
    if task == "opacity":
        return ("none", "opacity"), ["opacity" if text else "none" for text in boxes]
    return COVID, [COVID[each != APPEARANCES[0]] if each else "" for each in appearance]


def _appearances(file: Path) -> dict[str, str]:
    """Return the appearance of each study; one that has not exactly one is left out."""
    table = columns_of(file, ("id", *APPEARANCES))
    marked = pd.DataFrame({name: table[name] == "1" for name in APPEARANCES})
    sure = marked.sum(axis=1) == 1
    names = table["id"].str.removesuffix("_study")[sure]
    return dict(zip(names, map(str, marked[sure].idxmax(axis=1)), strict=True))


def _boxes(text: str, file: Path) -> str:
    """Return JSON [[x, y, w, h], ...] of a list of dictionaries as Python prints it."""
    if not text.strip():
        return ""
    try:
        found: list[dict[str, Any]] = json.loads(text.replace("'", '"'))
        return boxes_text([[float(box[side]) for side in _SIDES] for box in found])
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{file}: boxes '{text[:40]}' are no list of x, y, width, height") from None
