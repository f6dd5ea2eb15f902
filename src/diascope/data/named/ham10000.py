"""HAM10000: 10,015 dermatoscopic images of 7,470 lesions in 7 classes, with lesion masks.

Tschandl, Rosendahl and Kittler 2018, Scientific Data 5:180161 (doi:10.7910/DVN/DBW86T). Four
layouts are read, archives packed or unpacked:

- Harvard Dataverse: `HAM10000_metadata` (.csv or .tab), `HAM10000_images_part_1.zip` and
  `_part_2.zip`, `HAM10000_segmentations_lesion_tschandl.zip`;
- Kaggle: `HAM10000_metadata.csv`, folders `HAM10000_images_part_1` and `_part_2` (also in
  lower case), masks where they were added;
- reduced: `HAM10000_metadata.csv`, `images_200x150.zip`, `masks_200x150.zip` of any size;
- prepared squares: `index.csv` with the metadata's columns, `images_224.zip`, `masks_224.zip`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from diascope.data.dataset import Dataset
from diascope.data.downloads import folder_of, images_by_name
from diascope.data.named import DATASETS
from diascope.data.packed import named_size, place_of, require
from diascope.data.readers import FileReader, parse_size, read_table
from diascope.data.splits import NAMES
from diascope.data.strata import draw_per_class
from diascope.errors import UserError

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
ORIGINAL = (600, 450)
P1_CLASSES = ("mel", "nv", "bkl")
P1_COUNTS = (800, 0, 299)  # images a class (Margeloiu et al. 2020, appendix A)
_IMAGES = re.compile(r"(ham10000_images.*|images(_\d+(x\d+)?)?)(\.zip)?", re.IGNORECASE)
_MASKS = re.compile(r"(ham10000_segmentations.*|masks(_\d+(x\d+)?)?)(\.zip)?", re.IGNORECASE)
_METADATA = re.compile(r"ham10000_metadata(\.csv|\.tab|\.tsv|\.txt)?", re.IGNORECASE)


@DATASETS.register("ham10000")
def open_ham10000(
    root: Path | None,
    *,
    image_size: str = "",
    draw: Literal["all", "p1"] = "all",
    draw_seed: int = 0,
) -> Dataset:
    """Return HAM10000 in the folder `root`, in any of its four layouts.

    `image_size` is "WxH", which every image must have, or "any"; by default the size in the
    archive's name, else the original 600x450. `group` is the lesion; `source` the clinic where
    the metadata names it; further columns are `dx_type`, how the diagnosis was made, the
    patient's `age` and `sex`, the `localization` and the `preparation`. `draw="p1"` takes P1's
    balanced classes mel, nv and bkl, 800 images a class to train and 299 to test (column `split`),
    drawn by `draw_seed` with lesions kept whole. Raises `UserError` where no metadata or no images
    are found, or too few for the draw.
    """
    root = folder_of(root, "ham10000")
    metadata = _metadata(root)
    images, masks = images_by_name(root, _IMAGES), images_by_name(root, _MASKS)
    if not images:
        raise UserError(
            f"{root}: no images of HAM10000: expected HAM10000_images_part_1 and _part_2, as "
            "folders or .zip, or images_WxH.zip"
        )
    regions = {name.removesuffix("_segmentation"): mask for name, mask in masks.items()}
    before, _ = place_of(images)
    name = metadata["image_id"]
    columns: dict[str, Sequence[str] | pd.Series] = {
        "path": name.map(lambda image: images.get(image, f"{before}{image}.jpg")),
        "label": metadata["dx"],
        "group": metadata["lesion_id"],
        "mask": name.map(lambda image: regions.get(image, "")),
    }
    kept = {"source": "dataset", **{c: c for c in ("dx_type", "age", "sex", "localization")}}
    columns |= {column: metadata[of] for column, of in kept.items() if of in metadata}
    own = named_size(next(iter(images.values())))
    columns["preparation"] = [preparation(own)] * len(name)
    size = parse_size(image_size, "ham10000") if image_size else own or ORIGINAL
    dataset = Dataset.of("ham10000", columns, CLASSES, FileReader(root, size))
    if draw == "all":
        return dataset
    three = dataset.restrict(P1_CLASSES)
    side = draw_per_class(three, P1_COUNTS, draw_seed)
    split = np.array([*NAMES, ""], object)[side]
    return replace(three, table=three.table.assign(split=split)).take(side >= 0)


def _metadata(root: Path) -> pd.DataFrame:
    needed = ("lesion_id", "image_id", "dx")
    files = sorted(f for f in root.iterdir() if _METADATA.fullmatch(f.name) and f.is_file())
    if files:
        table = read_table(files[0])
        require(table, needed, files[0])
        return table
    prepared = root / "index.csv"
    table = read_table(prepared) if prepared.is_file() else pd.DataFrame()
    if not set(needed) <= set(table.columns):
        raise UserError(
            f"{root}: no HAM10000_metadata.csv or .tab, nor an index.csv with {', '.join(needed)}: "
            "not a download of HAM10000"
        )
    return table


def preparation(size: tuple[int, int] | None) -> str:
    """Return what was done to images in an archive of that size by name; "" of originals.

    Squares were cut from the centre, reduced, and their hairs painted over, so a model trained on
    them is tested on images of the same preparation.
    """
    return f"prepared {size[0]}x{size[1]}" if size and size[0] == size[1] else ""
