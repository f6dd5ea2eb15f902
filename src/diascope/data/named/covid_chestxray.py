"""COVID-19 image data collection (Cohen): X-rays from publications and web sites, with findings.

Cohen, Morrison and Dao 2020 (arXiv:2003.11597), https://github.com/ieee8023/covid-chestxray-dataset.
Two layouts are read:

- official, as cloned: `metadata.csv`, `images`, and for regions
  `annotations/imageannotation_ai_lung_bounding_boxes.json` (lungs, by radiologists) or
  `annotations/lungVAE-masks` (lungs, by a network);
- reduced: `index.csv`, `images_256.zip`, `lung_boxes_256.csv` (file, lung, x, y, w, h).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from diascope.data.boxes import boxes_of
from diascope.data.dataset import Dataset
from diascope.data.downloads import (
    boxes_text,
    columns_of,
    folder_of,
    images_by_name,
    size_of,
    stem,
    without,
)
from diascope.data.named import DATASETS
from diascope.data.readers import FileReader, brief
from diascope.errors import UserError

COVID = ("negative", "COVID-19")
HEALTHY = "No Finding"
UNKNOWN = ("", "todo", "unknown")
LATERAL = ("l", "lateral")
_IMAGES = re.compile(r"images(_\d+(x\d+)?)?(\.zip)?")
_NEEDED = ("patientid", "finding", "view", "modality", "url", "location")
_KEPT = ("finding", "view", "location", "license", "sex", "age", "offset")
_FLAGS = ("exact_dup_of", "radiography_match")
_BOXES = "annotations/imageannotation_ai_lung_bounding_boxes.json"
_MASKS = "annotations/lungVAE-masks"


@DATASETS.register("covid_chestxray")
def open_covid_chestxray(
    root: Path | None,
    *,
    against: Literal["other-findings", "no-finding", "rest"] = "other-findings",
    views: Literal["frontal", "all"] | list[str] = "frontal",
    regions: Literal["boxes", "masks"] = "boxes",
    source: Literal["site", "location"] = "site",
    drop_duplicates: bool = True,
    drop_radiography: bool = True,
) -> Dataset:
    """Return the X-rays of Cohen's collection in the folder `root`: COVID-19 against others.

    `against` says what is negative: "other-findings" (every other named disease), "no-finding",
    or the "rest", which is both; rows whose finding is unknown or still to be told are left out.
    `views` "frontal" leaves out lateral ones; a list, such as [PA, AP], keeps those. `regions` are
    the radiologists' boxes of the lungs, or the network's masks of them (official layout).
    `source` is the web site an image was taken from, or the place that its row names; `group` the
    published patient number. `drop_duplicates` and `drop_radiography` leave out rows that the
    table flags as copies of others, and as contained in the COVID-19 Radiography Database (the
    official table flags neither). Raises `UserError` where tables or images are missing.
    """
    root = folder_of(root, "covid_chestxray")
    images = images_by_name(root, _IMAGES)
    if not images:
        raise UserError(f"{root}: no images: expected the folder images, or images_256.zip")
    table = _table(root)
    kind = table["finding"].map(_kind)
    negative = {"other-findings": ("other",), "no-finding": ("healthy",)}
    asked = kind.isin(("covid", *negative.get(against, ("other", "healthy"))))
    reasons = {
        "not X-rays": table["modality"].str.lower() != "x-ray",
        f"of other views (views={views})": ~_in_views(table["view"], views),
        "without a known finding": kind == "unknown",
        f"of findings that are not asked about (against={against})": ~asked,
        "copies of others (drop_duplicates)": (table["exact_dup_of"] != "") & drop_duplicates,
        "contained in the COVID-19 Radiography Database (drop_radiography)": (
            (table["radiography_match"] != "") & drop_radiography
        ),
    }
    rows, notes = without(table, reasons)
    name = rows["file"].map(stem)
    place = next(iter(images.values())).rpartition(next(iter(images)))[0]
    columns: dict[str, Sequence[str] | pd.Series[str]] = {
        "path": [images.get(n, f"{place}{f}") for n, f in zip(name, rows["file"], strict=True)],
        "label": kind[rows.index].map(lambda each: COVID[each == "covid"]),
        "group": rows["patientid"].str.strip(),
        "source": rows["url"].map(_site) if source == "site" else rows["location"].str.strip(),
        **_regions(root, rows, images, regions),
        **{column: rows[column] for column in (*_KEPT, *_FLAGS) if column in rows},
    }
    dataset = Dataset.of("covid_chestxray", columns, COVID, FileReader(root))
    return replace(dataset, notes=notes)


def _table(root: Path) -> pd.DataFrame:
    """Return the rows of `metadata.csv` or `index.csv`, with the flags that only the latter has."""
    if (root / "metadata.csv").is_file():
        table = columns_of(root / "metadata.csv", (*_NEEDED, "filename"))
        table = table.rename(columns={"filename": "file"})
    elif (root / "index.csv").is_file():
        table = columns_of(root / "index.csv", (*_NEEDED, "file"))
    else:
        raise UserError(f"{root}: no metadata.csv or index.csv: not a copy of the collection")
    absent = [flag for flag in _FLAGS if flag not in table]
    return table.assign(**dict.fromkeys(absent, "")).reset_index(drop=True)


def _kind(finding: str) -> str:
    """Return covid, healthy, unknown or other for "COVID-19, ARDS" or "Pneumonia/Viral/SARS"."""
    names = [name.strip().lower() for name in re.split(r"[/,]", finding)]
    if "covid-19" in names:
        return "covid"
    if all(name in UNKNOWN for name in names):
        return "unknown"
    return "healthy" if HEALTHY.lower() in names else "other"


def _in_views(view: pd.Series[str], views: str | list[str]) -> pd.Series[bool]:
    name = view.str.strip().str.lower()
    if isinstance(views, list):
        return name.isin([each.lower() for each in views])
    return ~name.isin(LATERAL) if views == "frontal" else name == name


def _site(url: str) -> str:
    """Return the host of `url`; on GitHub, with the account, as it tells whose collection it is."""
    host, _, path = re.sub(r"^\w+://(www\.)?", "", url.strip()).partition("/")
    return f"{host}/{path.partition('/')[0]}" if host == "github.com" else host


def _regions(
    root: Path, rows: pd.DataFrame, images: dict[str, str], regions: str
) -> dict[str, list[str]]:
    """Return the column `boxes` or `mask`; {} where the folder holds no regions of that kind."""
    if regions == "masks":
        masks = images_by_name(root / "annotations", re.compile("lungVAE-masks"))
        return {"mask": [_mask(masks, stem(name)) for name in rows["file"]]}
    own = sorted(root.glob("lung_boxes_*.csv"))
    if own:
        return {"boxes": boxes_of(rows[["file"]], own[0])}
    if (root / _BOXES).is_file():
        boxes = _annotated(root, images)
        return {"boxes": [boxes.get(stem(name), "") for name in rows["file"]]}
    return {}


def _mask(masks: dict[str, str], name: str) -> str:
    found = masks.get(f"{name}_mask", "")
    return f"annotations/{found}" if found else ""


def _annotated(root: Path, images: dict[str, str]) -> dict[str, str]:
    """Return the boxes in the annotations (COCO) as JSON, in pixels of the stored image."""
    try:
        content: dict[str, Any] = json.loads((root / _BOXES).read_text(encoding="utf-8"))
        shapes = {each["id"]: each for each in content["images"]}
        boxes: dict[int, list[list[float]]] = {}
        for each in content["annotations"]:
            if None not in each["bbox"]:  # an image whose lungs nobody marked
                boxes.setdefault(each["image_id"], []).append([float(v) for v in each["bbox"]])
        found = {}
        for number, of_image in boxes.items():
            name = stem(shapes[number]["file_name"])
            width, height = shapes[number]["width"], shapes[number]["height"]
            now = size_of(root, images.get(name, "")) or (width, height)
            found[name] = boxes_text(of_image, (now[0] / width, now[1] / height))
        return found
    except (OSError, ValueError, KeyError, TypeError, ZeroDivisionError) as error:
        raise UserError(f"{root / _BOXES}: cannot be read ({brief(error)})") from None
