"""RSNA Pneumonia Detection Challenge 2018, stage 2: 26,684 chest X-rays with boxes of opacities.

Shih et al. 2019, Radiology: Artificial Intelligence 1:e180041. The official download as it is
unpacked: `stage_2_train_labels.csv` (a row a box), `stage_2_detailed_class_info.csv`, and
`stage_2_train_images` with a DICOM file an image, or `stage_2_train_images.zip`. Where
`pneumonia-challenge-dataset-mappings_2018.json` of the RSNA lies beside them, it tells which
image of ChestX-ray14 each one is, and so the patient.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pandas as pd

from diascope.data.dataset import Dataset
from diascope.data.downloads import (
    boxes_text,
    columns_of,
    folder_of,
    images_by_name,
    numbers_of,
    without,
)
from diascope.data.named import DATASETS
from diascope.data.readers import FileReader, brief
from diascope.errors import UserError

NORMAL, OTHER, OPACITY = "Normal", "No Lung Opacity / Not Normal", "Lung Opacity"
_IMAGES = re.compile(r"stage_2_train_images(\.zip)?")
_MAPPING = "pneumonia-challenge-dataset-mappings_2018.json"


@DATASETS.register("rsna_pneumonia")
def open_rsna_pneumonia(
    root: Path | None,
    *,
    task: Literal["opacity", "class"] = "opacity",
    against: Literal["rest", "normal"] = "rest",
) -> Dataset:
    """Return the labelled images of the challenge in the folder `root`.

    `task` "opacity" asks for a lung opacity against none or, with `against` "normal", against
    normal images only; "class" for Normal, other abnormality, and opacity. `boxes` are the
    radiologists', in pixels of the DICOM image. `group` is the patient of ChestX-ray14 where the
    mapping is there, with `nih_image` its image; else the challenge's `patientId`, which is one
    an image. Raises `UserError` where tables or images are missing.
    """
    root = folder_of(root, "rsna_pneumonia")
    images = images_by_name(root, _IMAGES, (".dcm",))
    if not images:
        raise UserError(
            f"{root}: no images: expected stage_2_train_images with .dcm files, or "
            "stage_2_train_images.zip"
        )
    boxes = _boxes(root / "stage_2_train_labels.csv")
    table = pd.DataFrame({"name": list(boxes)})
    detail = table["name"].map(_classes(root / "stage_2_detailed_class_info.csv")).fillna("")
    opaque = table["name"].map(lambda name: bool(boxes[name]))
    classes: tuple[str, ...] = (NORMAL, OTHER, OPACITY)
    if task == "opacity":
        classes = (NORMAL if against == "normal" else f"No {OPACITY}", OPACITY)
    label = detail if task == "class" else opaque.map({False: classes[0], True: OPACITY})
    other = ~opaque & (detail != NORMAL) & (task == "opacity" and against == "normal")
    rows, notes = without(
        table.assign(label=label, detail=detail), {"neither normal nor with an opacity": other}
    )
    nih = _nih_images(root / _MAPPING)
    names = list(rows["name"])
    columns: dict[str, Sequence[str] | pd.Series[str]] = {
        "path": [images.get(name, f"stage_2_train_images/{name}.dcm") for name in names],
        "label": rows["label"],
        "group": [nih[name].partition("_")[0] if name in nih else name for name in names],
        "boxes": [boxes_text(boxes[name]) for name in names],
        "class": rows["detail"],
        "nih_image": [nih.get(name, "") for name in names],
    }
    if not nih:
        notes += (f"no {_MAPPING}: several images of one patient are not known as a group",)
    dataset = Dataset.of("rsna_pneumonia", columns, classes, FileReader(root))
    return replace(dataset, notes=notes)


def _classes(file: Path) -> dict[str, str]:
    table = columns_of(file, ("patientId", "class"))
    return dict(zip(table["patientId"], table["class"], strict=True))


def _boxes(file: Path) -> dict[str, list[list[float]]]:
    """Return the boxes of each image, in the order of the file; none where Target is 0."""
    table = columns_of(file, ("patientId", "x", "y", "width", "height", "Target"))
    columns = ["patientId", "Target", "x", "y", "width", "height"]
    found: dict[str, list[list[float]]] = {}
    for name, target, *sides in table[columns].itertuples(index=False):
        boxes = found.setdefault(name, [])
        if target == "1":
            boxes.append(numbers_of(sides, file))
    return found


def _nih_images(file: Path) -> dict[str, str]:
    """Return the file name in ChestX-ray14 of each image, {} where the mapping is not there."""
    if not file.is_file():
        return {}
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))
        return {entry["subset_img_id"]: entry["img_id"] for entry in entries}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: cannot be read ({brief(error)}): download it again") from None
