"""ISIC 2018, task 3: dermatoscopic images in HAM10000's 7 classes; its test set is another one.

Codella et al. 2019, arXiv:1902.03368; Tschandl et al. 2019, Lancet Oncology 20:938. Three layouts
are read, archives packed or unpacked (then also within a folder of their own name):

- the challenge: `ISIC2018_Task3_Test_Input.zip`, `ISIC2018_Task3_Test_GroundTruth.zip` with a CSV
  file of image, MEL, NV, BCC, AKIEC, BKL, DF, VASC; likewise for Validation and Training, and
  `ISIC2018_Task3_Training_LesionGroupings.csv`;
- Harvard Dataverse, with HAM10000: `ISIC2018_Task3_Test_Images.zip` and
  `ISIC2018_Task3_Test_GroundTruth` (.csv or .tab) with the columns of HAM10000's metadata;
- prepared squares: the test set's table, `index.csv` (image_id, dx) and `images_224.zip`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import pandas as pd

from diascope.data.dataset import Dataset
from diascope.data.downloads import folder_of, images_by_name
from diascope.data.named import DATASETS
from diascope.data.named.ham10000 import CLASSES, ORIGINAL, preparation
from diascope.data.packed import named_size, place_of, require, table_of
from diascope.data.readers import FileReader, parse_size, read_table
from diascope.errors import UserError

_CODES = ["MEL", "NV", "BCC", "AKIEC", "BKL", "DF", "VASC"]
_TITLES = {"test": "Test", "validation": "Validation", "training": "Training"}
_SPLITS = {"test": "test", "validation": "val", "training": ""}
_PREPARED = r"images_\d+(x\d+)?(\.zip)?"


@DATASETS.register("isic2018")
def open_isic2018(
    root: Path | None,
    *,
    part: Literal["test", "validation", "training"] = "test",
    image_size: str = "",
) -> Dataset:
    """Return one `part` of ISIC 2018 task 3 in the folder `root`, by default the test images.

    Classes are HAM10000's, in its order. The training part is HAM10000 itself: it bears that name,
    so that an audit knows the lesions a model was trained on; its `group` is the lesion, by the
    groupings. The other parts have groups and sources where Dataverse's table names them.
    `image_size` is "WxH" or "any"; by default the size in the archive's name, else 600x450.
    Further columns: `dx_type`, how the diagnosis was made; `preparation`. Raises `UserError` where
    tables or images are missing.
    """
    root = folder_of(root, "isic2018")
    title = f"ISIC2018_Task3_{_TITLES[part]}"
    images = _images(root, title, part)
    rows = _truth(root, title)
    size = named_size(next(iter(images.values())))
    if size is not None:
        rows = _listed(root, rows)
    if part == "training":
        rows = rows[["image", "label"]].join(_lesions(root, title, rows["image"]))
    before, suffix = place_of(images)
    columns: dict[str, Sequence[str] | pd.Series] = {
        "path": [images.get(name, f"{before}{name}{suffix}") for name in rows["image"]],
        "split": [_SPLITS[part]] * len(rows),
        "preparation": [preparation(size)] * len(rows),
        **{str(column): rows[column] for column in rows if column != "image"},
    }
    size = parse_size(image_size, "isic2018") if image_size else size or ORIGINAL
    name = "ham10000" if part == "training" else "isic2018"
    return Dataset.of(name, columns, CLASSES, FileReader(root, size))


def _images(root: Path, title: str, part: str) -> dict[str, str]:
    pattern = rf"{title}_(Input|Images)(\.zip)?"
    found = images_by_name(root, re.compile(pattern, re.IGNORECASE))
    if not found and part == "test":
        found = images_by_name(root, re.compile(_PREPARED, re.IGNORECASE))
    if not found:
        raise UserError(
            f"{root}: no images of ISIC 2018: expected {title}_Input, as a folder or .zip"
        )
    return found


def _truth(root: Path, title: str) -> pd.DataFrame:
    """Return image, label, group, source and dx_type of each row of the ground truth."""
    found = table_of(root, f"{title}_GroundTruth.csv", f"{title}_GroundTruth.tab")
    if found is None:
        raise UserError(f"{root}: no {title}_GroundTruth.csv: not a download of ISIC 2018")
    file, table = found
    if "dx" in table:  # Dataverse's
        require(table, ("image_id", "lesion_id"), file)
        names = {"image_id": "image", "dx": "label", "lesion_id": "group", "dataset": "source"}
        table = table.rename(columns=names)
        kept = [c for c in ("image", "label", "group", "source", "dx_type") if c in table]
        return table[kept]
    require(table, ("image", *_CODES), file)
    marks = table[_CODES].apply(pd.to_numeric, errors="coerce")
    single = ((marks == 1).sum(axis=1) == 1) & ((marks == 0).sum(axis=1) == len(_CODES) - 1)
    label = marks.fillna(0).idxmax(axis=1).str.lower().where(single, "")
    return pd.DataFrame({"image": table["image"], "label": label, "group": ""})


def _listed(root: Path, rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of the images that `index.csv` lists, whose labels it must have too."""
    found = table_of(root, "index.csv")
    if found is None:
        return rows
    file, index = found
    require(index, ("image_id", "dx"), file)
    listed = index.merge(rows, left_on="image_id", right_on="image", how="left")
    wrong = listed[listed["dx"] != listed["label"]]
    if len(wrong):
        first = wrong.iloc[0]
        raise UserError(
            f"{file}: '{first['image_id']}' is {first['dx']} there, and {first['label']} in the "
            "ground truth"
        )
    return listed[list(rows.columns)]


def _lesions(root: Path, title: str, images: pd.Series[str]) -> pd.DataFrame:
    """Return the lesion of each of `images`, and how its diagnosis was made."""
    name = f"{title}_LesionGroupings.csv"
    files = [f for f in (root / name, root / f"{title}_GroundTruth" / name) if f.is_file()]
    if not files:
        raise UserError(
            f"{root}: no {name}: without it images of one lesion would stand in training and test"
        )
    table = read_table(files[0])
    require(table, ("image", "lesion_id"), files[0])
    names = {"lesion_id": "group", "diagnosis_confirm_type": "dx_type"}
    table = table.rename(columns=names).drop_duplicates("image").set_index("image")
    missing = images[~images.isin(table.index)]
    if len(missing):
        raise UserError(f"{files[0]}: has no lesion of '{missing.iloc[0]}': download it again")
    found = table[[column for column in names.values() if column in table]]
    return found.reindex(images.to_numpy()).set_index(images.index)
