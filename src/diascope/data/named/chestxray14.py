"""ChestX-ray14: 112,120 frontal chest X-rays of 30,805 patients of the NIH, 14 findings.

Wang et al. 2017, CVPR (arXiv:1705.02315). Two layouts are read, images as PNG of 1024x1024 or in
any other size:

- official: `Data_Entry_2017.csv` or `Data_Entry_2017_v2020.csv`; the images in `images`, in
  `images_001` to `images_012` (Kaggle), or in ZIP files of such names; where they are there,
  `train_val_list.txt`, `test_list.txt` and `BBox_List_2017.csv`;
- reduced: `index.csv` (file, patient_id, label), `images_256.zip`, `boxes_256.csv`.
"""

from __future__ import annotations

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
    size_of,
    stem,
    without,
)
from diascope.data.named import DATASETS
from diascope.data.readers import FileReader, read_table
from diascope.errors import UserError, nearest

FINDINGS = (
    "Atelectasis",
    "Cardiomegaly",
    "Consolidation",
    "Edema",
    "Effusion",
    "Emphysema",
    "Fibrosis",
    "Hernia",
    "Infiltration",
    "Mass",
    "Nodule",
    "Pleural_Thickening",
    "Pneumonia",
    "Pneumothorax",
)
NONE = "No Finding"
SIDE = 1024  # pixels of the images to which BBox_List_2017.csv refers
_IMAGES = re.compile(r"images([_-]?\d+)*(x\d+)?(\.zip)?", re.IGNORECASE)
_BOX_NAMES = {"Infiltrate": "Infiltration"}  # as the box list calls it
_KEPT = {
    "Patient Age": "age",
    "Patient Gender": "sex",
    "Patient Sex": "sex",
    "View Position": "view",
    "Follow-up #": "follow_up",
    "radiography_normal_match": "radiography_normal_match",
    "exact_dup_of": "exact_dup_of",
}


@DATASETS.register("chestxray14")
def open_chestxray14(
    root: Path | None,
    *,
    task: str = "any",
    against: Literal["rest", "no-finding"] = "rest",
    boxes: Literal["task", "all"] = "task",
    views: list[str] | None = None,
    partial: bool = False,
) -> Dataset:
    """Return ChestX-ray14 in the folder `root`, for one question.

    `task` "any" asks for any finding against "No Finding"; a finding, such as "pneumothorax", for
    that one against the rest or, with `against` "no-finding", against images without any. `boxes`
    "task" keeps the radiologist's boxes of that finding, "all" those of every finding. `views`
    keeps some of PA and AP. `partial` leaves out images whose files are not there, such as those
    of archives that were not downloaded. `group` is the patient's published number; `split` the
    official list; the column `findings` has all labels. Raises `UserError` where tables or images
    are missing, or for an unknown `task`.
    """
    root = folder_of(root, "chestxray14")
    finding = _finding(task)
    images = images_by_name(root, _IMAGES)
    if not images:
        raise UserError(
            f"{root}: no images of ChestX-ray14: expected images, images_001 to images_012, or "
            "ZIP files of such names; unpack the .tar.gz files"
        )
    table = _entries(root)
    name = pd.Series(list(map(stem, table["image"].tolist())), table.index, dtype=object)
    classes, positive, asked = _question(table["findings"], finding, against)
    present = name.isin(images)
    reasons = {
        "no such file in the folder (partial)": ~present & partial,
        f"of views other than {', '.join(views or [])}": ~_in_views(table, views, root),
        f"with other findings than {finding}": ~asked,
    }
    rows, notes = without(table, reasons)
    names = name[rows.index].tolist()
    place = next(iter(images.values())).rpartition(next(iter(images)))[0]
    regions = _boxes(root, images, finding if boxes == "task" else "")
    sides = _official(root)
    columns: dict[str, Sequence[str] | pd.Series[str]] = {
        "path": [images.get(each, f"{place}{each}.png") for each in names],
        "label": positive[rows.index].map({False: classes[0], True: classes[1]}),
        "group": rows["patient"].str.zfill(8),
        "split": [sides.get(each, "") for each in names],
        "boxes": [regions.get(each, "") for each in names],
        "findings": rows["findings"],
        **{column: rows[column] for column in dict.fromkeys(_KEPT.values()) if column in rows},
    }
    dataset = Dataset.of("chestxray14", columns, classes, FileReader(root))
    return replace(dataset, notes=notes)


def _question(
    findings: pd.Series[str], finding: str, against: str
) -> tuple[tuple[str, str], pd.Series[bool], pd.Series[bool]]:
    """Return the classes, which images are positive, and which are asked about at all."""
    labels = "|" + findings + "|"
    healthy = labels.str.contains(f"|{NONE}|", regex=False)
    if not finding:
        return (NONE, "Finding"), ~healthy, healthy | True
    positive = labels.str.contains(f"|{finding}|", regex=False)
    if against == "no-finding":
        return (NONE, finding), positive, positive | healthy
    return (f"No {finding}", finding), positive, positive | True


def _finding(task: str) -> str:
    """Return the finding that `task` names, "" for any."""
    names = {name.lower(): name for name in FINDINGS}
    key = task.strip().lower().replace(" ", "_").replace("-", "_")
    if key == "any":
        return ""
    if key not in names:
        known = nearest(key, ["any", *names])
        raise UserError(f"chestxray14: task='{task}': no such finding: {known}")
    return names[key]


def _entries(root: Path) -> pd.DataFrame:
    """Return image, findings and patient of each row, and what else the table tells."""
    official = sorted(root.glob("Data_Entry_2017*.csv"))
    if official:
        table = columns_of(official[-1], ("Image Index", "Finding Labels", "Patient ID"))
        names = {"Image Index": "image", "Finding Labels": "findings", "Patient ID": "patient"}
    elif (root / "index.csv").is_file():
        table = columns_of(root / "index.csv", ("file", "label", "patient_id"))
        names = {"file": "image", "label": "findings", "patient_id": "patient"}
    else:
        raise UserError(
            f"{root}: no Data_Entry_2017.csv, Data_Entry_2017_v2020.csv or index.csv: not a "
            "download of ChestX-ray14"
        )
    return table.rename(columns={**names, **_KEPT})


def _in_views(table: pd.DataFrame, views: list[str] | None, root: Path) -> pd.Series:
    if views is None:
        return pd.Series(True, table.index)
    if "view" not in table:
        raise UserError(f"{root}: views={views}: its table does not tell the views")
    return table["view"].isin([view.upper() for view in views])


def _official(root: Path) -> dict[str, str]:
    """Return the split of each image by the official lists; {} unless both are there."""
    files = {"train": root / "train_val_list.txt", "test": root / "test_list.txt"}
    if not all(file.is_file() for file in files.values()):
        return {}
    lists = {split: file.read_text(encoding="utf-8").split() for split, file in files.items()}
    return {stem(name): split for split, names in lists.items() for name in names}


def _boxes(root: Path, images: dict[str, str], finding: str) -> dict[str, str]:
    """Return the boxes of each image as JSON, in pixels of the stored image.

    Both files begin with the image, the finding, x, y, w and h; the official one is in pixels of
    1024x1024, `boxes_256.csv` in those of the images beside it.
    """
    own = sorted(root.glob("boxes_*.csv"))
    file = own[0] if own else root / "BBox_List_2017.csv"
    if not file.is_file():
        return {}
    table = read_table(file)
    if table.shape[1] < 6:
        raise UserError(f"{file}: expected the columns image, finding, x, y, w, h")
    found: dict[str, list[list[float]]] = {}
    for image, label, *sides in table.iloc[:, :6].itertuples(index=False):
        if not finding or _BOX_NAMES.get(label, label) == finding:
            found.setdefault(stem(image), []).append(numbers_of(sides, file))
    return {
        name: boxes_text(boxes, (1.0, 1.0) if own else _scale(root, images.get(name)))
        for name, boxes in found.items()
    }


def _scale(root: Path, address: str | None) -> tuple[float, float]:
    size = size_of(root, address) if address else None
    width, height = size or (SIDE, SIDE)
    return width / SIDE, height / SIDE
