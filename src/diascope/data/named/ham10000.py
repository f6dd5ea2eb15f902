"""HAM10000: 10,015 dermatoscopic images of 7,470 lesions in 7 classes, with lesion masks.

Tschandl, Rosendahl and Kittler 2018, Scientific Data 5:180161 (doi:10.7910/DVN/DBW86T). Three
layouts are read, archives packed or unpacked:

- Harvard Dataverse: `HAM10000_metadata` (.csv or .tab), `HAM10000_images_part_1.zip` and
  `_part_2.zip`, `HAM10000_segmentations_lesion_tschandl.zip`;
- Kaggle: `HAM10000_metadata.csv`, folders `HAM10000_images_part_1` and `_part_2` (also in
  lower case), masks where they were added;
- reduced: `HAM10000_metadata.csv`, `images_200x150.zip`, `masks_200x150.zip` of any size.
"""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd

from diascope.data.dataset import Dataset
from diascope.data.named import DATASETS
from diascope.data.readers import FileReader, listing, parse_size, read_table
from diascope.errors import UserError

CLASSES = ("akiec", "bcc", "bkl", "df", "mel", "nv", "vasc")
ORIGINAL = (600, 450)
_IMAGES = re.compile(r"(ham10000_images.*|images(_\d+x\d+)?)(\.zip)?", re.IGNORECASE)
_MASKS = re.compile(r"(ham10000_segmentations.*|masks(_\d+x\d+)?)(\.zip)?", re.IGNORECASE)
_METADATA = re.compile(r"ham10000_metadata(\.csv|\.tab|\.tsv|\.txt)?", re.IGNORECASE)


@DATASETS.register("ham10000")
def open_ham10000(root: Path | None, *, image_size: str = "") -> Dataset:
    """Return HAM10000 in the folder `root`, in any of its three layouts.

    `image_size` is "WxH", which every image must have, or "any"; by default the size in the
    archive's name, else the original 600x450. `group` is the lesion; `source` the clinic where
    the metadata names it. Raises `UserError` where no metadata or no images are found.
    """
    if root is None or not root.is_dir():
        what = "no folder is given" if root is None else f"{root} is no folder"
        raise UserError(f"ham10000: {what}: write ham10000:PATH of the downloaded files")
    metadata = _metadata(root)
    images, masks = _addresses(root, _IMAGES), _addresses(root, _MASKS)
    if not images:
        raise UserError(
            f"{root}: no images of HAM10000: expected HAM10000_images_part_1 and _part_2, as "
            "folders or .zip, or images_WxH.zip"
        )
    place = next(iter(images.values())).rpartition(f"{next(iter(images))}.")[0]
    name = metadata["image_id"]
    source = metadata["dataset"] if "dataset" in metadata else [""] * len(name)
    columns = {
        "path": name.map(lambda image: images.get(image, f"{place}{image}.jpg")),
        "label": metadata["dx"],
        "group": metadata["lesion_id"],
        "source": source,
        "mask": name.map(lambda image: masks.get(image, "")),
    }
    size = parse_size(image_size, "ham10000") if image_size else _size_of(images)
    return Dataset.of("ham10000", columns, CLASSES, FileReader(root, size))


def _metadata(root: Path) -> pd.DataFrame:
    files = sorted(f for f in root.iterdir() if _METADATA.fullmatch(f.name) and f.is_file())
    if not files:
        raise UserError(f"{root}: no HAM10000_metadata.csv or .tab: not a download of HAM10000")
    table = read_table(files[0])
    missing = [c for c in ("lesion_id", "image_id", "dx") if c not in table]
    if missing:
        raise UserError(f"{files[0]}: no column '{missing[0]}': download the metadata again")
    return table


def _addresses(root: Path, pattern: re.Pattern[str]) -> dict[str, str]:
    """Return the address of each image id in the folders and archives that fit `pattern`."""
    found: dict[str, str] = {}
    for place in sorted(root.iterdir(), key=lambda place: (place.is_file(), place.name)):
        if pattern.fullmatch(place.name):
            for address in listing(root, place.name):
                found.setdefault(_image_id(address), address)
    return found


def _image_id(address: str) -> str:
    return re.split(r"[/!]", address)[-1].partition(".")[0].removesuffix("_segmentation")


def _size_of(images: dict[str, str]) -> tuple[int, int]:
    named = re.match(r"images_(\d+)x(\d+)", next(iter(images.values())), re.IGNORECASE)
    return (int(named[1]), int(named[2])) if named else ORIGINAL
