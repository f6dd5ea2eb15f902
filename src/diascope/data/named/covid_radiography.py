"""COVID-19 Radiography Database: 21,165 chest X-rays of four kinds, with masks of the lungs.

Chowdhury et al. 2020, IEEE Access 8:132665; Rahman et al. 2021, Computers in Biology and Medicine
132:104319. Two layouts are read:

- Kaggle: folders `COVID`, `Normal`, `Lung_Opacity` and `Viral Pneumonia`, each with `images` and
  `masks` (or, in its first versions, the images themselves), and `COVID.metadata.xlsx` and so on;
- reduced: `index.csv` (file, label, source_group, near_dup_of), `images_224.zip`.

The kinds come from different hospitals, so that the source tells the label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from diascope.data.dataset import Dataset
from diascope.data.downloads import columns_of, folder_of, images_by_name, size_of, stem, without
from diascope.data.named import DATASETS
from diascope.data.readers import FileReader
from diascope.data.spreadsheet import read_xlsx
from diascope.errors import UserError

FINDINGS = ("COVID", "Lung_Opacity", "Normal", "Viral Pneumonia")
COVID = ("negative", "COVID-19")

_IMAGES = re.compile(r"images(_\d+(x\d+)?)?(\.zip)?")
_SOURCES = {  # by a part of the address in the metadata
    "bimcv": "bimcv",
    "ml-workgroup": "hannover",
    "sirm.org": "sirm",
    "eurorad": "eurorad",
    "ieee8023": "cohen",
    "armiro": "covid-cxnet",
    "rsna-pneumonia": "rsna",
    "paultimothymooney": "kermany",
}


@dataclass(frozen=True)
class LungReader(FileReader):
    """Reads a mask at the size of its image: Kaggle's have 256x256 pixels, the images 299x299."""

    def mask(self, path: str) -> NDArray[np.bool_]:
        """Return the lungs, (H, W) of the image of the same name in the folder `images`."""
        region = super().mask(path)
        size = size_of(self.root, "images".join(path.rsplit("masks", 1)))
        if size is None or region.shape[::-1] == size:
            return region
        return np.asarray(Image.fromarray(region).resize(size, Image.Resampling.NEAREST))


@DATASETS.register("covid_radiography")
def open_covid_radiography(
    root: Path | None,
    *,
    task: Literal["covid", "finding"] = "covid",
    against: Literal["normal", "rest"] = "normal",
    drop_duplicates: bool = True,
) -> Dataset:
    """Return the COVID-19 Radiography Database in the folder `root`.

    `task` "covid" asks for COVID-19 against normal images or, with `against` "rest", against all
    others, under the classes of `siim_covid19` and `covid_chestxray`; "finding" for the four.
    `drop_duplicates` leaves out images that the table flags as near duplicates of others (the
    official download flags none). `mask` is the region of the lungs, `source` the collection,
    where the metadata tells it. There are no patient numbers. Raises `UserError` where images are
    missing.
    """
    root = folder_of(root, "covid_radiography")
    reduced = (root / "index.csv").is_file()
    table = _reduced(root) if reduced else _kaggle(root)
    finding = table["finding"]
    classes: tuple[str, ...] = FINDINGS
    label = finding
    other = pd.Series(False, table.index)
    if task == "covid":
        classes, label = COVID, finding.map(lambda name: COVID[name == "COVID"])
        other = ~finding.isin(["COVID", "Normal"]) & (against == "normal")
    again = (table["near_dup_of"] != "") & drop_duplicates
    rows, notes = without(
        table.assign(label=label),
        {"near duplicates of others (drop_duplicates)": again, "neither COVID nor normal": other},
    )
    columns = {str(name): rows[name] for name in rows}
    reader = FileReader(root) if reduced else LungReader(root)
    dataset = Dataset.of("covid_radiography", columns, classes, reader)
    return replace(dataset, notes=notes)


def _reduced(root: Path) -> pd.DataFrame:
    file = root / "index.csv"
    table = columns_of(file, ("file", "label", "source_group", "near_dup_of"))
    images = images_by_name(root, _IMAGES)
    if not images:
        raise UserError(f"{root}: no images: expected images_224.zip, or one of another size")
    place = next(iter(images.values())).rpartition(next(iter(images)))[0]
    name = table["file"].map(stem)
    path = [
        images.get(each, f"{place}{file}") for each, file in zip(name, table["file"], strict=True)
    ]
    return (
        table.drop(columns=["file"])
        .assign(path=path)
        .rename(columns={"label": "finding", "source_group": "source"})
    )


def _kaggle(root: Path) -> pd.DataFrame:
    """Return path, finding, source and mask of each image in the folders of the findings."""
    base = _base(root)
    parts = []
    for finding in FINDINGS:
        folder = _named(base, (finding, finding.replace(" ", "_"), f"{finding}-19"))
        if folder is None:
            continue
        inner = folder / "images" if (folder / "images").is_dir() else folder
        images = images_by_name(inner.parent, re.compile(re.escape(inner.name)))
        masks = images_by_name(folder, re.compile("masks"))
        sources = _sources(base, finding)
        at, beside = (place.relative_to(root).as_posix() for place in (inner.parent, folder))
        parts.append(
            pd.DataFrame(
                {
                    "path": [_joined(at, images[name]) for name in images],
                    "finding": finding,
                    "source": [sources.get(name.lower(), "") for name in images],
                    "mask": [_joined(beside, masks[n]) if n in masks else "" for n in images],
                    "near_dup_of": "",
                }
            )
        )
    if not sum(map(len, parts)):
        raise UserError(
            f"{root}: no images of the COVID-19 Radiography Database: expected folders COVID, "
            "Normal, Lung_Opacity and 'Viral Pneumonia' with images in them, or index.csv"
        )
    return pd.concat(parts, ignore_index=True)


def _base(root: Path) -> Path:
    """Return the folder of the findings: `root`, or the one that the archive unpacks to."""
    inner = root / "COVID-19_Radiography_Dataset"
    return inner if inner.is_dir() else root


def _named(base: Path, names: tuple[str, ...]) -> Path | None:
    """Return the folder in `base` of one of `names`, in capitals or not."""
    wanted = {name.lower() for name in names}
    return next(
        (f for f in sorted(base.iterdir()) if f.is_dir() and f.name.lower() in wanted), None
    )


def _joined(folder: str, address: str) -> str:
    return address if folder == "." else f"{folder}/{address}"


def _sources(base: Path, finding: str) -> Mapping[str, str]:
    """Return the collection of each image, by its name in small letters; {} without metadata."""
    file = base / f"{finding}.metadata.xlsx"
    if not file.is_file():
        return {}
    table = read_xlsx(file)
    columns = {str(name).upper(): name for name in table}
    if not {"FILE NAME", "URL"} <= columns.keys():
        raise UserError(f"{file}: expected the columns FILE NAME and URL: download it again")
    names = table[columns["FILE NAME"]].str.strip().str.lower()
    return dict(zip(names, table[columns["URL"]].map(_source), strict=True))


def _source(url: str) -> str:
    """Return a short name of the collection at `url`, else its host."""
    known = (name for part, name in _SOURCES.items() if part in url.lower())
    return next(known, re.sub(r"^\w+://(www\.)?", "", url.strip()).partition("/")[0])
