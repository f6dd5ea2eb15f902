"""EyePACS, of Kaggle's Diabetic Retinopathy Detection (2015): fundus photographs of both eyes.

35,126 training images graded in `trainLabels.csv`, 53,576 test images whose grades were published
after the competition as `retinopathy_solution.csv`. Two layouts are read:

- Kaggle: `trainLabels.csv` (image, level), `train/*.jpeg`; `retinopathy_solution.csv` (image,
  level, Usage), `test/*.jpeg`; each also as one ZIP file, the tables as `.csv.zip`;
- reduced: `index.csv` (file, patient_id, eye, level), `images_400.zip` of any size.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import pandas as pd

from diascope.data.dataset import Dataset
from diascope.data.downloads import folder_of, images_by_name
from diascope.data.fundus import Task, graded
from diascope.data.named import DATASETS
from diascope.data.packed import named_size, place_of, require, table_of
from diascope.data.readers import FileReader, parse_size
from diascope.errors import UserError

_TABLES = {"train": ("trainLabels.csv",), "test": ("retinopathy_solution.csv", "testLabels15.csv")}
_REDUCED = re.compile(r"images(_\d+(x\d+)?)?(\.zip)?", re.IGNORECASE)
_EYE = re.compile(r"(\d+)_(left|right)")


@DATASETS.register("eyepacs")
def open_eyepacs(
    root: Path | None,
    *,
    task: Task = "referable",
    part: Literal["train", "test", "all"] = "train",
    image_size: str = "",
) -> Dataset:
    """Return the graded eyes in the folder `root`; `group` is the patient, of both eyes.

    `task` is "referable" (grades 2 to 4 against 0 and 1; "p2" is another name of it), "any"
    (1 to 4 against 0) or "grades" (all five). `part` is the training images, which a split
    divides by patient; the test images; or both, then in column `split`. Further columns: `grade`,
    `eye`, `usage` (the Public or Private leaderboard of a test image). `image_size` is "WxH" or
    "any"; by default the size in the archive's name, else any. Raises `UserError` where tables or
    images are missing, or an image is not called PATIENT_left or PATIENT_right.
    """
    root = folder_of(root, "eyepacs")
    prepared = table_of(root, "index.csv")
    if table_of(root, *_TABLES["train"]) is None and prepared is not None:
        table = _reduced(root, *prepared)
        if part != "train":
            raise UserError(f"{root}: holds no test images, only reduced training ones")
    else:
        parts = ("train", "test") if part == "all" else (part,)
        table = pd.concat([_official(root, each) for each in parts], ignore_index=True)
        if part == "train":
            table["split"] = ""
    labels, classes = graded(table["grade"].tolist(), task)
    size = parse_size(image_size, "eyepacs") if image_size else named_size(table["path"].iloc[0])
    columns = {str(column): table[column] for column in table} | {"label": labels}
    return Dataset.of("eyepacs", columns, classes, FileReader(root, size))


def _official(root: Path, part: str) -> pd.DataFrame:
    """Return the rows of the training or test images, as Kaggle gave them out."""
    found = table_of(root, *_TABLES[part])
    if found is None:
        raise UserError(f"{root}: no {_TABLES[part][0]}: not the {part} images of EyePACS")
    file, table = found
    require(table, ("image", "level"), file)
    images = images_by_name(root, re.compile(rf"{part}(\.zip)?"))
    if not images:
        parts = sorted(f.name for f in root.glob(f"{part}.zip.0*"))
        hint = f": join its parts, cat {part}.zip.0* > {part}.zip" if parts else ""
        raise UserError(f"{root}: no images in {part} or {part}.zip{hint}")
    before, suffix = place_of(images)
    rows = pd.DataFrame({"grade": table["level"], "split": part, "usage": table.get("Usage", "")})
    rows["path"] = [images.get(name, f"{before}{name}{suffix}") for name in table["image"]]
    return rows.assign(**_patients(table["image"], file))


def _reduced(root: Path, file: Path, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `index.csv`, checked against the patients in the names."""
    require(table, ("file", "patient_id", "level"), file)
    images = images_by_name(root, _REDUCED)
    if not images:
        raise UserError(f"{root}: no images_SIZE.zip beside index.csv")
    before, suffix = place_of(images)
    names = table["file"].str.partition(".")[0]
    rows = pd.DataFrame({"grade": table["level"]})
    rows["path"] = [images.get(name, f"{before}{name}{suffix}") for name in names]
    patients = _patients(names, file)
    wrong = table["patient_id"] != patients["group"]
    if wrong.any():
        where = table.index[wrong][0]
        raise UserError(
            f"{file}: '{names[where]}' has the patient_id '{table['patient_id'][where]}'"
        )
    return rows.assign(**patients)


def _patients(names: pd.Series[str], file: Path) -> dict[str, list[str]]:
    """Return the group and the eye of images called PATIENT_left and PATIENT_right."""
    matches = [(name, _EYE.fullmatch(name)) for name in names]
    for name, match in matches:
        if match is None:
            raise UserError(f"{file}: '{name}' is not called PATIENT_left or PATIENT_right")
    found = [match for _, match in matches if match is not None]
    return {"group": [match[1] for match in found], "eye": [match[2] for match in found]}
