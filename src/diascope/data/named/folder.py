"""A folder of class folders: `root/class/**/image`, or `root/train/class/**/image` and so on."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath

from diascope.data.dataset import Dataset
from diascope.data.formats import Depth
from diascope.data.groups import of_dicom
from diascope.data.hidden import hide
from diascope.data.named import DATASETS
from diascope.data.readers import FileReader, listing, parse_size
from diascope.errors import UserError

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}


@DATASETS.register("folder")
def open_folder(
    root: Path | None,
    *,
    masks: str = "",
    group: str = "",
    image_size: str = "any",
    depth: Depth = 16,
    private: bool | None = None,
) -> Dataset:
    r"""Return the images in the class folders of `root`; hidden files are left out.

    Where all folders of `root` are called train, val or test, they are official splits and
    the classes lie in them. `masks` is a folder that holds a mask at the place and name of
    each image (any suffix). `group` is a regular expression whose first group in a file name
    is the patient, such as "(\d+)_(left|right)", or "dicom:PatientID" for an element of DICOM
    files. `image_size` is "WxH" or "any". `depth`: how grey of 16 bits becomes 8 (8, 10, 12, 14,
    16 or stretch; see `formats.grey`). `private`: pseudonyms in place of paths and groups, by
    default where a file is DICOM (see `hidden.hide`). Raises `UserError` where there is no image
    or no class.
    """
    if root is None or not root.is_dir():
        raise UserError(f"folder: {root or 'no folder is given'}: expected a folder of images")
    aside = root / masks if (root / masks).is_dir() else Path(masks)
    regions = _regions(root, aside) if masks else {}
    inside = set(regions.values())
    names = [name for name in listing(root, ".") if name not in inside]
    if not names:
        raise UserError(f"{root}: no images in it: expected one folder a class")
    tops = {name.partition("/")[0] for name in names if "/" in name}
    official = bool(tops) and tops <= SPLITS.keys()
    parts = [PurePosixPath(name).parts for name in names]
    labels = [p[official] if len(p) > 1 + official else "" for p in parts]
    classes = sorted(set(labels) - {""})
    if not classes:
        raise UserError(f"{root}: its images lie in no class folders: expected one folder a class")
    reader = FileReader(root, parse_size(image_size, str(root)), depth)
    hashed = of_dicom(reader, names, group)
    pattern = None if hashed is not None else _pattern(group)
    columns = {
        "path": names,
        "label": labels,
        "group": [_group(pattern, p[-1]) for p in parts],
        "split": [SPLITS[p[0]] if official and len(p) > 1 else "" for p in parts],
        "mask": [regions.get(str(PurePosixPath(name).with_suffix("")), "") for name in names],
    }
    shown, reads = hide(columns, reader, private, hashed)
    return Dataset.of(root.resolve().name, shown, classes, reads)


def _regions(root: Path, folder: Path) -> dict[str, str]:
    """Return the masks in `folder` by the place and stem of the image they belong to."""
    if not folder.is_dir():
        raise UserError(f"folder: masks={folder}: there is no such folder")
    base = folder.relative_to(root) if folder.is_relative_to(root) else folder.absolute()
    found = listing(folder, ".")
    return {str(PurePosixPath(f).with_suffix("")): (base / f).as_posix() for f in found}


def _pattern(group: str) -> re.Pattern[str] | None:
    if not group:
        return None
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise UserError(f"folder: group='{group}': not a regular expression ({error})") from None
    if not pattern.groups:
        raise UserError(f"folder: group='{group}': put the patient's part in (parentheses)")
    return pattern


def _group(pattern: re.Pattern[str] | None, name: str) -> str:
    match = pattern.search(name) if pattern else None
    return (match[1] or "") if match else ""
